"""Numerical kernels that know nothing of the model: compilation, elementary functions, the solver, random streams, threads."""
