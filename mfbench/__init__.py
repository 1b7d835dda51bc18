"""The harness: says whether a kernel of biased, masked matrix factorization is right, and whether it is faster."""
