"""From a planned graph to C, libraries and callable modules."""
