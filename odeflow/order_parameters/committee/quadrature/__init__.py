"""Averages of the two-layer network over the fields of a cluster, one file a kind of integrand; `by_rule` chooses."""
