"""Confidence intervals, verdicts and change points of timing samples."""
