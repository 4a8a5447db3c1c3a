"""Rewrites of the graph, one file each; their order is in graphopt/compiler/pipeline.py."""
