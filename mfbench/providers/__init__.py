"""The implementations that are measured: by name, from a user's file, or from another revision."""
