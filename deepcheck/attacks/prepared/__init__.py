"""Attacks that are prepared on other images, or on another net, before they are run."""
