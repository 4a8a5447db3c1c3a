"""Compiled graphs as ops of a framework."""
