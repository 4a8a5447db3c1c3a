"""Signals that go on: what is heard while somebody speaks."""
