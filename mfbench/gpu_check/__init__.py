"""Everything that a short visit to a GPU machine should find out, in the order of its worth."""
