"""One pass over the examples, or the regularised batch optimum on all of them: what alpha N examples teach.

The seed's mixture, with a bias. Both learners are given their best settings for each number of examples and each test attack:

One pass
    The seed's rule (erf, squared loss, |w| = 1): the best constant rates eta_w, eta_b and training epsilon, by a grid that is
    narrowed six times, and the best of the rates that fall as 1/(1 + alpha/alpha_0) (in 12 steps, same factor for both).
Batch
    Logistic loss on all examples: the best ridge and the best training epsilon (`odeflow.erm.optimal_epsilon`). Of equal
    classes the weights are then along the mean of tau xi, which is Bayes optimal.

Both are exact as N grows. Beside the least error that any classifier has (alpha infinite), the study shows what an error is
made of: examples that are wrong, and examples that an attack orthogonal to B makes wrong (the boundary error of Vilucchio,
Zdeborova and Loureiro, arXiv 2506.12454). Runs at finite N go through the lines.
"""

from studies.online_or_batch.study import run

__all__ = ["STUDIES", "run"]

STUDIES = [
    {
        "name": "online_or_batch",
        "title": "one pass or the batch optimum: what do equal numbers of examples teach, with and without an attack?",
        "place": 48,
    },
]
