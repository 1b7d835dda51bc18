"""What each command does behind its options; `mfbench.cli` has the options."""
