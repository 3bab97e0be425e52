"""Natural corruptions of images."""
