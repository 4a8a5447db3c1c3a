"""Where the time of a compiled model goes, how near to the machine's limits, and why no nearer."""
