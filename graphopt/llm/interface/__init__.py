"""A compiled decoder in the place of a model of transformers."""
