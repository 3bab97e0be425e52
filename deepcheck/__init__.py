"""Deep experiments that match the theory in `odeflow`. `deepcheck.data` has the images."""
