"""From a model to a library that runs, step by step, and what is reported of it."""
