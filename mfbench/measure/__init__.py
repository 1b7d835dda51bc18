"""Time the providers of a suite against each other, case by case."""
