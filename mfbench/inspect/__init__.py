"""Compile the GPU kernel without a GPU, read its machine code, and model a bound on its time."""
