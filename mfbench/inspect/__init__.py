"""Compiled builds of the kernel read without a GPU: what the machine code holds, and what a model makes of it."""
