r"""Every defence under the attack that its authors chose, under the standard suite, and under one that is made for it.

A small net is trained on MNIST by each method of `deepcheck.training`, and each defence of `deepcheck.defences` is put around the
net of standard training. Each is then attacked in L-infinity at epsilon = 0.3 three times over: as it was when it was proposed
(the claimed evaluation: few steps, one start, or a net that is attacked without its defence); by the standard suite (APGD on
cross-entropy, targeted APGD, targeted FAB, Square); and by attacks that know it (many steps on the margin with restarts, the mean
over draws of what is random, a backward pass for what has no gradient). The gap of the first and the last is what was
claimed too much. Beside it stands the mean error under natural corruptions, which nobody chose to fool the net.

All attacks of a defence meet the same first test images, so that differences are paired. The standard and the adaptive column are
those of the worst case of each image over the attacks before and in it; of a defence that is random, which would fail by
chance if it were asked often enough, they are the lowest accuracy under one attack. All are upper bounds of the robust accuracy. The nets
are small and learn from 10,000 images: what a larger one has is another question, and the published numbers are those of
larger ones.
"""

from studies.defences.study import run

__all__ = ["STUDIES", "run"]

STUDIES = [
    {
        "name": "defences",
        "title": "defences under the attack of their authors, the standard suite, and one that is made for them",
        "place": 165,
        "long": True,
    },
]
