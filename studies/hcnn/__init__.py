r"""Confidence as a defence: separation, rejection and the most confident neighbour, measured, attacked, and in theory.

Wu, Jang, Chen, Chen and Jha (ICML 2018, arXiv 1711.08001) train a net adversarially, find that it is confident of wrong answers
hardly anywhere near the data, and build on that: reject what is answered with less confidence than a level p, or answer as the most
confident point within xi does (MCN, the embedding H; HCNN with a penalty on the distance; NCN, the nearest point of confidence p; two forms by
entropy). Their tables 1 to 4 are measured here on MNIST with a small net, adversarially trained in L-infinity at delta = 0.3, and with a
natural one. On CIFAR-10 the paper has the radii eta = 0.010 to 0.030 of attacks and delta = 8/255; here eta = 0.1 to 0.3, in about the
same ratio to delta. Every share has its exact binomial bounds at confidence 0.9.

- Table 1, separation: the share of 300 points for which an attack within delta reaches a confidence of 0.9 in a wrong class. The attack is
  an ascent on the confidence in each wrong class, with 100 steps from 10 random starts; on a few points that of Carlini and Wagner.
- Tables 2 and 3, rejection: AWPR, the share of the points classified correctly for which an attack within eta finds a wrong answer that is
  accepted, and the recall, the share of natural points that are accepted, for p = 0.9, 0.95, 0.99.
- Table 4: images are attacked on the net alone towards every wrong class; where is the true class among the most confident points of the ten
  classes, within the same radius? As the paper has no attack on the embedding, a second part asks what one finds that knows it: the surrogate is the
  largest confidence of each class over the ball, with its gradient by Danskin's theorem, and an attack aims at confident wrong points within
  eta + xi and goes back to the ball of eta.
- Propositions 1 and 2, bounds by the mean of the worst loss, for 20 small nets of four methods on the digits.
- Theory. For a linear net of two classes all of it is closed (`odeflow.errors`): the embedding moves a point by xi along its own side and
  changes no answer; it lowers the threshold of rejection by xi |w|. Nets that learned from the mixture are put on the lines. For two classes MCN
  answers with the sign of the mid-range of the output over the ball, so that it can change an answer where the output is not odd about its
  boundary: two-layer nets are the simplest, and there it helps or harms, as the theory says by how much.
"""

from studies.hcnn.study import run

__all__ = ["STUDIES", "run"]

STUDIES = [
    {
        "name": "hcnn",
        "title": "confidence as a defence: separation, rejection and the most confident neighbour, attacked, and in theory",
        "place": 152,
        "long": True,
    },
]
