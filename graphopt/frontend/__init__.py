"""From a model to a graph: what torch.export captures, and what it took for granted."""
