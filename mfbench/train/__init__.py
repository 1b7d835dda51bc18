"""Train with any provider: the notebook's task and loop, and the same on real ratings with a held-out part."""
