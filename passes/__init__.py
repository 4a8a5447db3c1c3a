"""Rewrites of the graph, one file each; their order is in graphopt/pipeline.py."""
