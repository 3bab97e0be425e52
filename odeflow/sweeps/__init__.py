"""What a sweep is made of: the grid, what is computed at its points, where, and the store."""
