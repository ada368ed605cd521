"""A short search among linear policies: who exploits a design, where no exact model can tell.

Source: the cross-entropy method, Rubinstein, "The Cross-Entropy Method for Combinatorial and Continuous Optimization",
1999; on linear policies as in Szita and Lorincz, "Learning Tetris Using the Noisy Cross-Entropy Method", 2006.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from reward_design.agents.collector import Collector
from reward_design.combinators import freeze_running
from reward_design.core import Reward, Transition
from reward_design.distance.features import flat_observations
from reward_design.envs.base import FunctionalEnv, Task
from reward_design.envs.host import HostEnv


class Searched(NamedTuple):
    """All policies that were tried, and what they earn in one episode each.

    Attributes:
        weights: ``[P, D + 1, A]`` of linear policies on standardised observations.
        task: ``[P]`` discounted return of the task's reward.
        designed: ``[P]`` discounted return of the design.
        designed_early: ``[P]`` the same, of the first half of the steps alone.
        terms: ``[P]`` discounted absolute sum of each term of the design.
        success: ``[P]`` whether the episode achieved the task.
        act: ``(weights [P, D + 1, A], obs [P, ...]) -> actions``, NumPy.
        steps: length of the episodes.
    """

    weights: Float[np.ndarray, "P D A"]
    task: Float[np.ndarray, " P"]
    designed: Float[np.ndarray, " P"]
    designed_early: Float[np.ndarray, " P"]
    terms: dict[str, Float[np.ndarray, " P"]]
    success: np.ndarray
    act: Callable[[Any, Any], np.ndarray]
    steps: int


def search(
    task: Task, reward: Reward, observations: Any, *, gamma: float, population: int, generations: int, steps: int,
    seed: int = 0,
) -> Searched:  # fmt: skip
    """Random linear policies, then generations around those that the design pays best.

    Args:
        task: any task with Discrete or bounded Box actions.
        reward: the design.
        observations: ``[N, ...]`` that give centre and scale of the observations.
        gamma: discount per step.
        population: policies per generation.
        generations: after the first, half of the population is drawn around the best quarter.
        steps: length of an episode.
        seed: of policies and episodes.
    """
    act = linear_policies(task, observations)
    size = flat_observations(jax.tree.map(lambda x: np.asarray(x)[:1], observations)).shape[1] + 1
    rng, tried = np.random.default_rng(seed), []
    scorers = [_scorer(one) for one in (task.true_reward, reward)]
    weights = rng.normal(size=(population, size, num_outputs(task.env.action_space)))
    for generation in range(generations):
        rows = rollouts(task, act, weights, steps=steps, seed=seed + generation)
        tried.append((weights, *_returns(task, scorers, rows, gamma)))
        best = weights[np.argsort(-tried[-1][2])[: max(2, population // 4)]]
        near = best.mean(0) + (best.std(0) + 0.1) * rng.normal(size=(population // 2, *weights.shape[1:]))
        fresh = rng.normal(size=(population - len(near) - 1, *weights.shape[1:]))
        weights = np.concatenate([best[:1], near, fresh])
    weights, of_task, designed, early, terms, success = zip(*tried, strict=True)
    joined = {name: np.concatenate([t[name] for t in terms]) for name in terms[0]}
    whole = np.concatenate
    return Searched(
        whole(weights), whole(of_task), whole(designed), whole(early), joined, whole(success), act, steps
    )  # fmt: skip


def linear_policies(task: Task, observations: Any) -> Callable[[Any, Any], np.ndarray]:
    """``(weights, obs) -> actions``: argmax for Discrete spaces, tanh into the bounds for Box spaces."""
    space: Any = task.env.action_space
    x = flat_observations(observations)
    centre, spread = x.mean(0), np.where(x.std(0) > 1e-9, x.std(0), 1.0)

    def act(weights: Any, obs: Any) -> np.ndarray:
        z = np.clip((flat_observations(obs) - centre) / spread, -5, 5)
        z = np.concatenate([z, np.ones((len(z), 1))], axis=1)
        out = np.einsum("pd,pda->pa", z, weights) / np.sqrt(z.shape[1])
        if hasattr(space, "n"):
            return (out.argmax(1) + int(space.start)).astype(np.int32)
        low, high = space.low.reshape(-1), space.high.reshape(-1)
        return (low + (high - low) * (np.tanh(out) + 1) / 2).reshape(-1, *space.shape).astype(space.dtype)

    return act


def num_outputs(space: Any) -> int:
    """Outputs of a linear policy for an action space.

    Raises:
        TypeError: for other spaces than Discrete and bounded Box.
    """
    if hasattr(space, "n"):
        return int(space.n)
    if getattr(space, "low", None) is None or not np.isfinite([space.low, space.high]).all():
        raise TypeError(f"the policy search of an audit needs Discrete or bounded Box actions, got {space}.")
    return int(np.prod(space.shape))


def rollouts(task: Task, act: Any, weights: np.ndarray, *, steps: int, seed: int) -> Transition:
    """One episode per policy, leaves ``[T, P, ...]``; rows after its end are masked."""
    num = len(weights)
    if isinstance(task.env, HostEnv):
        envs = task.vector(num, seed=seed)
        collector = Collector(envs, task.env, steps, seed=seed)
        rows, _ = collector.collect(lambda obs, rng: (act(weights, obs), ()), np.random.default_rng(seed))
        envs.close()
    else:
        rows = _on_device(task, act, weights, steps, seed)
    ended = np.cumsum(np.asarray(rows.terminated) | np.asarray(rows.truncated), axis=0)
    over = np.concatenate([np.zeros((1, num), bool), ended[:-1] > 0])
    return rows._replace(mask=np.asarray(rows.mask) & ~over)


def _on_device(task: Task, act: Any, weights: np.ndarray, steps: int, seed: int) -> Transition:
    """Steps of all lanes in one compiled call; actions are computed on the host between them."""
    env, num = task.functional(), len(weights)
    keys = jax.random.split(jax.random.key(seed), num)
    reset, step = _compiled(env)
    (obs, state), rows = reset(keys), []
    for t in range(steps):
        action = act(weights, obs)
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), t), num)
        after, state, reward, terminated, truncated, info = step(keys, state, jnp.asarray(action))
        rows.append(Transition(obs, action, after, reward, terminated, truncated, np.ones(num, bool), info))
        obs = after
    return jax.tree.map(lambda *x: np.stack([np.asarray(one) for one in x]), *rows)


@functools.lru_cache(maxsize=8)
def _compiled(env: FunctionalEnv) -> tuple[Any, Any]:
    return jax.jit(jax.vmap(env.reset)), jax.jit(jax.vmap(env.step))


def _returns(task: Task, scorers: Any, rows: Transition, gamma: float) -> tuple[Any, ...]:
    """Discounted returns of the task, the design, and its first half; absolute sums of terms, success, per episode."""
    discount = gamma ** np.arange(len(rows.mask))[:, None]
    own, output = (scorer(rows) for scorer in scorers)
    paid = np.asarray(own.reward, float)
    designed, mask = np.asarray(output.reward, float), np.asarray(rows.mask)
    terms = {name: (discount * np.abs(np.asarray(term))).sum(0) for name, term in output.terms.items()}
    success = (np.asarray(task.success(jax.tree.map(jnp.asarray, rows))) & mask).any(0)
    early = (discount * designed)[: -(-len(mask) // 2)].sum(0)
    return (discount * paid).sum(0), (discount * designed).sum(0), early, terms, success


def _scorer(reward: Reward) -> Callable[[Transition], Any]:
    """``unroll`` with running statistics frozen, compiled once."""
    frozen = freeze_running(reward)
    unroll = jax.jit(frozen.unroll)

    def score(rows: Transition) -> Any:
        params, state = frozen.init(jax.random.key(0), jax.tree.map(lambda x: jnp.asarray(x[0]), rows))
        return unroll(params, state, jax.tree.map(jnp.asarray, rows))[0]

    return score
