"""`mfbench report`: loading and grouping, then figures and tables, then a page or a few lines of Markdown."""
