"""A task and the two languages in words, as prompts show them."""

from reward_design.envs import task as task_by_name
from reward_design.envs.base import Task
from reward_design.llm.inputs import described, input_specs
from reward_design.llm.terms import DIRECTIONS, MAX_TERMS, SHAPES

LANGUAGES = ("code", "terms")


def describe_task(task: Task | str) -> str:
    """What a designer is told about a task: text, typed inputs with ranges, factors with unit and direction.

    Neither source code nor a reward of the task is part of it.

    Args:
        task: a task or its name.

    Returns:
        Plain text.

    Example:
        >>> print(describe_task("chain")[:28])
        Task: chain
        An agent walks i
    """
    task = named_task(task)
    lines = [f"Task: {task.name}", task.description, f"Episodes stop after {task.horizon} steps.", "", "Inputs:"]
    lines += input_lines(task)
    lines += ["", "Factors (named quantities of a step):"]
    lines += [
        f"- {name} [{factor.unit}], {'more' if factor.sign > 0 else 'less'} is better: {factor.description}"
        for name, factor in task.factors.items()
    ]
    return "\n".join(lines)


def reward_contract(task: Task | str, language: str = "code") -> str:
    """How a reward must be written in a language, for this task.

    Args:
        task: a task or its name.
        language: ``"code"`` or ``"terms"``.

    Returns:
        Plain text.

    Raises:
        ValueError: for another language.

    Example:
        >>> "initial_memory()" in reward_contract("chain", "code")
        True
    """
    task = named_task(task)
    check_language(language)
    return _terms_contract(task) if language == "terms" else _code_contract(task)


def input_lines(task: Task) -> list[str]:
    """One line per array that a reward may read."""
    return [f"- {line}" for name, spec in input_specs(task).items() for line in described(name, spec)]


def named_task(task: Task | str) -> Task:
    """The task itself, also from its name.

    Raises:
        TypeError: for neither.
    """
    if not isinstance(task, str | Task):
        raise TypeError(f"task must be a Task or the name of one, such as 'chain', got {type(task).__name__}.")
    return task_by_name(task) if isinstance(task, str) else task


def check_language(language: str) -> None:
    """Refuse what is not a language for rewards.

    Raises:
        ValueError: naming the two.
    """
    if language not in LANGUAGES:
        raise ValueError(f"language must be 'code' or 'terms', got {language!r}.")


def _code_contract(task: Task) -> str:
    inputs = "\n".join(input_lines(task))
    return f"""\
Write one Python function `reward` for a single transition (no batch axis). It is traced by JAX, so it must be pure.
Parameters: any of obs, action, next_obs, terminated, truncated, info, memory, by these names:
{inputs}
It returns one of
- a scalar reward;
- (reward, components), a dict of named scalars that add up to the reward;
- with the parameter memory: (reward, components, new_memory), or (reward, new_memory).
Memory lasts for one episode. If you use it, also write `def initial_memory():` without parameters, which returns what
memory is on the first step: arrays in a dict or tuple. The new memory must have the same structure, shapes and dtypes.
Rules
- `jax` and `jnp` are at hand; import nothing but jax, jax.numpy, jax.lax, jax.nn, math, functools and typing.
- No `if` or `while` on array values: use jnp.where, jnp.clip, lax.fori_loop with constant bounds, lax.scan.
- No random numbers, printing, classes, try, globals, files, or names that begin with an underscore.
- Only plain array operations: no matrix decompositions, FFT or callbacks.
- The value must be finite for every input, also for zeros and for the largest inputs: guard divisions and logarithms.
Example
```python
def reward(obs, action, next_obs, terminated):
    effort = -0.01 * jnp.sum(jnp.square(action.astype(jnp.float32)))
    end = jnp.where(terminated, 1.0, 0.0)
    return effort + end, {{"effort": effort, "end": end}}
```"""


def _terms_contract(task: Task) -> str:
    shapes = "\n".join(f"- {name}: {meaning}" for name, meaning in SHAPES.items())
    first = next(iter(task.factors), "name")
    towards = "increase" if first in task.factors and task.factors[first].sign > 0 else "decrease"
    return f"""\
Answer with one JSON object {{"terms": [...]}} of 1 to {MAX_TERMS} terms. The reward is the sum of weight * f(x) over
the terms, where x is the value of the term's factor at a step. Each term is an object with
- factor: one of {", ".join(task.factors)};
- shape: f, one of
{shapes}
- direction: {" or ".join(DIRECTIONS)}, what should happen to x;
- weight: a number, how much the term counts;
- scale: a number above 0, the size of x that counts as large (for threshold: the value to reach).
Example
{{"terms": [{{"factor": "{first}", "shape": "linear", "direction": "{towards}", "weight": 1.0, "scale": 1.0}}]}}"""
