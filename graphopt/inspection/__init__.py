"""Shows what became of a model."""
