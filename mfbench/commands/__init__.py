"""The commands: their options and their text; the work is done in the rooms below."""
