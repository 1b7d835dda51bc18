"""Detect providers that game the benchmark: `auditor` is the harness's side of the audit, `probe` the worker's."""
