"""When should the adversary be strong? The best schedules of epsilon, beside the best constant, and on nets.

Theory: the schedules epsilon(alpha) that leave the least adversarial error at the end of training, over the priors and the
separation of the classes; whether they are still worth anything where the learning rates are chosen as well. Simulations
at finite N under the best schedule. And AT of nets on images: a radius that grows during the whole training, as the theory's
does, beside a constant one and the usual warm-up.
"""

from studies.schedule.study import run

__all__ = ["STUDIES", "run"]

STUDIES = [
    {
        "name": "schedule",
        "title": "when the adversary should be strong: the best schedules of epsilon",
        "place": 47,
        "long": True,
    },
]
