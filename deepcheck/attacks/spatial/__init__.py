"""Attacks that are not additive: by flows, colours, rotations and translations, and by several of them together."""
