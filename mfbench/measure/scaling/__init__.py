"""How the time of a step changes with the number of processes: launches, rounds within them, and a model."""
