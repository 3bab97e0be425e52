"""Where learning ends: fixed points, their phases, and how fast they are reached."""
