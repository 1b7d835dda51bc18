"""Audit of timed samples: detect providers that game the benchmark.

`auditor.Auditor` is the harness's side and `probe.Probe` the worker's. `Auditor` issues a `Challenge` for every sample,
the probe carries it out around each evaluation, and `Auditor` checks what the probe observed.
"""
