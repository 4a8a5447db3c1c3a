"""What passes share: patterns, products of matrices, and how numbers are rounded."""
