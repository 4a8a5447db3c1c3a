"""Well-known networks at their official sizes, with random weights."""
