"""FunASR's models, ahead of time: read, captured, compiled, and run without FunASR."""
