"""Embeddings: a net is asked about a point near the image that it is more sure of (Wu, Jang, Chen, Chen and Jha, ICML 2018)."""

from deepcheck.defences.neighbours.base import Embedding
from deepcheck.defences.neighbours.by_label import HCNN, MCN, NCN, ByLabel, Neighbours
from deepcheck.defences.neighbours.entropies import MCNRenyi, MCNShannon
from deepcheck.defences.neighbours.pulled_back import PulledBack
from deepcheck.defences.neighbours.surrogates import AtEmbedded, BestOverBall

__all__ = [
    "HCNN",
    "MCN",
    "NCN",
    "AtEmbedded",
    "BestOverBall",
    "ByLabel",
    "Embedding",
    "MCNRenyi",
    "MCNShannon",
    "Neighbours",
    "PulledBack",
]
