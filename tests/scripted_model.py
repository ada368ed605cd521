"""A model that says what it is told to, and a small search that asks it."""

import json

from reward_design.llm import design
from tests import design_worker

SMALL = design_worker.SMALL
GOOD = """Here:
```python
def reward(obs, next_obs):
    sparse = jnp.where(next_obs == 19, 3.0, 0.0)
    return sparse, {"sparse": sparse, "dense": (next_obs - obs) * 7.0}
```"""


def terms(weight=1.0, factor="distance", shape="progress", direction="decrease"):
    entry = {"factor": factor, "shape": shape, "direction": direction, "weight": weight, "scale": 1.0}
    return json.dumps({"terms": [entry]})


class Script:
    """A model that says what it is told to, in order, and keeps what it was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []
        self.__name__ = "script"

    def __call__(self, messages):
        self.asked.append(messages)
        return self.answers[(len(self.asked) - 1) % len(self.answers)]


def search(model, tmp_path, task_name="chain", **settings):
    return design(task_name, model=model, out=tmp_path, **{**SMALL, "language": "terms", **settings})
