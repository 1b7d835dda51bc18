"""The correctness gate for test suites: a pytest plugin and equivalence checks."""
