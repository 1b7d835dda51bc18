"""The CPU backend: a C++ kernel that is compiled on first use."""
