"""Loading and running what was compiled, with numpy alone."""
