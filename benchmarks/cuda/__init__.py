"""What needs a GPU: cards of minutes, run in order of priority by ``python -m benchmarks.cuda``."""
