"""Studies: one command each, which leaves a figure and a data file with provenance, and checks stated claims."""

from studies.registry import STUDIES, Claim, Outcome, run_study

__all__ = ["STUDIES", "Claim", "Outcome", "run_study"]
