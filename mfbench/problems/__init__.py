"""The problems that are measured: suites of cases, data sets, and the inputs drawn for a case."""
