"""Attributions: maps of what a prediction rests on, how alike two maps are, and the attack that moves them."""
