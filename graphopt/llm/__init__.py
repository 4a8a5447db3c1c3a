"""Language models: from a file or a model to something that generates."""
