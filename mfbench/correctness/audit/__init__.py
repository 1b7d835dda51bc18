"""Detect providers that game the benchmark while they are timed."""
