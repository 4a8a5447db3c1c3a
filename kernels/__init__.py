"""C kernels, their registry, and what they compute, in numpy."""
