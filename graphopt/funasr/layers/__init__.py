"""FunASR's layers as modules that can be captured; these need torch."""
