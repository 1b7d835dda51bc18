"""The correctness gate: judge outputs against the float64 oracle, and explain what is wrong with them."""
