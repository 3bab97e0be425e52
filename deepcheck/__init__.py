"""Deep experiments that match the theory. Nothing is here yet; the theory alone is in `odeflow`."""
