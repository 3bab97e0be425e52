"""How long a student of two units stays on its plateau under adversarial training.

A teacher of two orthogonal units, and a student of two, all of erf. From small weights the student's units first become alike
and learn the teacher's mean: the loss rests on a plateau, until the difference of the units has grown. Theory: the
symmetric fixed point, the rate at which the specialised mode grows there, over the training epsilon and the learning rate, and the
plateau's length by integration. Simulations at finite N go through it.
"""

from studies.plateau.study import run

__all__ = ["STUDIES", "run"]

STUDIES = [
    {
        "name": "plateau",
        "title": "a teacher's student of two units: how adversarial training changes the plateau",
        "place": 45,
    },
]
