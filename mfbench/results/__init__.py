"""What was found: records on disk, the environment they came from, and comparisons between them."""
