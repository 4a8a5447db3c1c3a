"""Rules that turn `aten.*` nodes into `go.*` nodes, one table per family of ops."""
