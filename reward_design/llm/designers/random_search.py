"""The control without a model: random documents of the language ``terms``."""

import json

import numpy as np

from reward_design.envs.base import Task
from reward_design.llm.designers.session import Prompt, Session
from reward_design.llm.terms import DIRECTIONS, SHAPES

MAX_TERMS = 4
"""Terms of a random document, as many as the embedded model may write."""


def random_terms(task: Task, rng: np.random.Generator) -> str:
    """A random document: 1 to 4 different terms; factor, shape and direction uniform, weight and scale log-uniform.

    It knows what the language and the task know, and nothing else: the sign of a factor is not used, and scales lie
    within [0.1, 10] whatever the unit.

    Args:
        task: whose factors are drawn.
        rng: random numbers.

    Example:
        >>> from reward_design.envs import task
        >>> document = json.loads(random_terms(task("cartpole"), np.random.default_rng(0)))
        >>> sorted(document["terms"][0])
        ['direction', 'factor', 'scale', 'shape', 'weight']
    """
    options = [(f, s, d) for f in task.factors for s in SHAPES for d in DIRECTIONS]
    chosen = rng.choice(len(options), size=min(int(rng.integers(1, MAX_TERMS + 1)), len(options)), replace=False)
    terms = []
    for index in chosen.tolist():
        factor, shape, direction = options[index]
        weight, scale = (float(f"{10.0 ** rng.uniform(-1, 1):.3g}") for _ in range(2))
        terms.append({"factor": factor, "shape": shape, "direction": direction, "weight": weight, "scale": scale})
    return json.dumps({"terms": terms})


def propose(session: Session, number: int, draw: int) -> Prompt:
    """A random document per draw."""
    source = random_terms(session.task, session.rng("random", number, draw))
    return Prompt(source=source, origin="random")
