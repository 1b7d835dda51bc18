"""The GPU backend: Triton kernels, their tiles and their launches."""
