"""Audit of timed samples: detect providers that game the benchmark."""
