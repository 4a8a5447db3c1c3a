"""What has been compiled, known without torch and compiler."""


class Compiled:
    """What `graphopt.optimize` returns, and does not take."""
