"""What timing needs of a device and its host: clocks, caches, memory, cores, load."""
