"""Tests of `mfbench.report`."""
