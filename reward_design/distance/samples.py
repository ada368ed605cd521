"""One batch of transitions for all rewards: from exact models, functional environments, and recorded rollouts.

A sampled distance is only as good as its batch. Every source here gives the same states, actions and successors to all
rewards, and several independent successors per pair where the simulator can be set back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reward_design.core import Transition
from reward_design.envs.base import FunctionalEnv, Tabular, Task

SUCCESSORS = (
    "Successors are independent draws for each pair of state and action, so redistribution over successors is seen "
    "through up to noise that shrinks with the number of samples."
)
DETERMINISTIC = "The simulator is deterministic: one successor per pair is all there is, and nothing is redistributed."
RECORDED = (
    "Recorded transitions hold one successor per pair. Positive scale and shaping inside the span of the features are "
    "removed exactly. Where the dynamics are stochastic, redistribution over successors is not seen through and what "
    "differs between successors counts: distance and interval are then those of a canonicalisation that keeps the "
    "successor, not of STARC. What the data do not visit does not count."
)


@dataclass(frozen=True, eq=False)
class Samples:
    """N pairs of state and action with K successors each.

    Attributes:
        obs: ``[N, ...]``.
        action: ``[N, ...]`` drawn from the policy that values refer to.
        next_obs: ``[N, K, ...]``.
        reward: ``[N, K]`` what the environment paid.
        terminated: ``[N, K]`` bool.
        info: named arrays ``[N, K, ...]``.
        group: ``[N]`` rows that depend on each other (one lane or episode) share a number; bootstrap draws groups.
        guarantees: what may be concluded from these samples, in words.
        states: ``[N]`` and ``[N, K]`` simulator states of obs and next_obs, or None.
        simulate: ``(key, states, actions) -> (next_obs, terminated)`` on leading axis ``[B]``, or None.
        trajectory: ``[T, B]`` rollout behind recorded samples, for rewards with memory, or None.
        rows: where each row lies in the flattened trajectory.
    """

    obs: Any
    action: Any
    next_obs: Any
    reward: np.ndarray
    terminated: np.ndarray
    info: dict[str, Any]
    group: np.ndarray
    guarantees: str
    states: tuple[Any, Any] | None = None
    simulate: Callable[[Any, Any, Any], tuple[Any, Any]] | None = None
    trajectory: Transition | None = None
    rows: np.ndarray | None = None

    @property
    def num_samples(self) -> int:
        """N."""
        return self.reward.shape[0]

    @property
    def num_next(self) -> int:
        """K."""
        return self.reward.shape[1]

    def transitions(self) -> Transition:
        """All N·K transitions, leaves ``[N·K, ...]``."""
        repeat = lambda x: np.repeat(np.asarray(x), self.num_next, axis=0)  # noqa: E731
        flat = lambda x: np.asarray(x).reshape(-1, *np.shape(x)[2:])  # noqa: E731
        no = np.zeros(self.reward.size, bool)
        return Transition(
            jax.tree.map(repeat, self.obs), jax.tree.map(repeat, self.action), jax.tree.map(flat, self.next_obs),
            flat(self.reward), flat(self.terminated), no, ~no, jax.tree.map(flat, self.info),
        )  # fmt: skip


def sample_tabular(
    model: Tabular, *, num_samples: int, num_next: int = 1, seed: int = 0, policy: Any = None
) -> Samples:
    """Samples of an exact model: states uniform among those that are not terminal, actions by a policy.

    Args:
        model: the MDP.
        num_samples: N.
        num_next: K independent successors per pair.
        seed: of NumPy's generator.
        policy: ``[S, A]``, default uniform.

    Returns:
        :class:`Samples` whose observations are state indices.

    Example:
        >>> from reward_design.envs import task
        >>> sample_tabular(task("chain").tabular(), num_samples=5, num_next=2).next_obs.shape
        (5, 2)
    """
    check_sizes(num_samples, num_next)
    rng = np.random.default_rng(seed)
    num_states, num_actions = model.transition.shape[:2]
    start = rng.choice(np.flatnonzero(~model.terminal), num_samples)
    chances = np.full((num_states, num_actions), 1 / num_actions) if policy is None else np.asarray(policy, float)
    action = drawn(rng, chances[start])
    successors = drawn(rng, np.repeat(model.transition[start, action], num_next, axis=0)).reshape(-1, num_next)

    def simulate(key: Any, states: Any, actions: Any) -> tuple[Any, Any]:
        own = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        following = drawn(own, model.transition[np.asarray(states), np.asarray(actions)])
        return following, following

    return Samples(
        start.astype(np.int32), action.astype(np.int32), successors.astype(np.int32),
        model.reward[start[:, None], action[:, None], successors], model.terminal[successors], {},
        np.arange(num_samples), SUCCESSORS, (start, successors), simulate,
    )  # fmt: skip


def drawn(rng: np.random.Generator, probabilities: np.ndarray) -> np.ndarray:
    """One index per row of ``[B, n]`` probabilities."""
    edges = np.cumsum(probabilities, axis=-1)
    return (rng.random(len(edges))[:, None] * edges[:, -1:] >= edges).sum(-1)


def sample_functional(
    task: Task | FunctionalEnv,
    *,
    num_samples: int,
    num_next: int = 8,
    seed: int = 0,
    num_lanes: int = 64,
    policy: Callable[[Any, Any], Any] | None = None,
) -> Samples:
    """Samples of an environment on the device: states from rollouts, each set back for K successors of a fresh action.

    Args:
        task: a task with a functional environment, or the environment.
        num_samples: N, rounded up to whole steps of all lanes.
        num_next: K.
        seed: of JAX's keys.
        num_lanes: lanes that are rolled out, with resets.
        policy: ``(key, obs) -> action`` of one lane, default uniform over the action space (Box bounds, finite).

    Returns:
        :class:`Samples`; a lane is a group.

    Raises:
        TypeError: for a task that is stepped on the host.
    """
    check_sizes(num_samples, num_next)
    env = task.functional() if isinstance(task, Task) else task
    act = policy or uniform_policy(env.action_space)
    num_lanes = min(num_lanes, num_samples)
    num_steps = -(-num_samples // num_lanes)

    def lane(key: Any) -> Any:
        first, key = jax.random.split(key)

        def body(carry: Any, key: Any) -> Any:
            obs, state = carry
            k_act, k_step, k_reset, k_other, k_next = jax.random.split(key, 5)
            row = _successors(env, act, k_other, k_next, obs, state, num_next)
            after, moved, _, terminated, truncated, _ = env.step(k_step, state, act(k_act, obs))
            done = terminated | truncated
            carry = jax.tree.map(lambda a, b: jnp.where(done, a, b), env.reset(k_reset), (after, moved))
            return carry, row

        return jax.lax.scan(body, env.reset(first), jax.random.split(key, num_steps))[1]

    rows = jax.jit(jax.vmap(lane))(jax.random.split(jax.random.key(seed), num_lanes))
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)
    obs, state, action, next_obs, next_state, reward, terminated, info = flat
    obs, action, next_obs, terminated, info = jax.tree.map(np.asarray, (obs, action, next_obs, terminated, info))

    @jax.jit
    def simulate(key: Any, states: Any, actions: Any) -> tuple[Any, Any]:
        keys = jax.random.split(key, len(jax.tree.leaves(states)[0]))
        following, after, *_ = jax.vmap(env.step)(keys, states, actions)
        return following, after

    return Samples(
        obs, action, next_obs, np.asarray(reward, float), terminated, dict(info),
        np.repeat(np.arange(num_lanes), num_steps), SUCCESSORS, (state, next_state), simulate,
    )  # fmt: skip


def _successors(env: FunctionalEnv, act: Any, k_act: Any, k_next: Any, obs: Any, state: Any, num_next: int) -> Any:
    action = act(k_act, obs)
    step = lambda key: env.step(key, state, action)  # noqa: E731
    next_obs, after, reward, terminated, _, info = jax.vmap(step)(jax.random.split(k_next, num_next))
    return obs, state, action, next_obs, after, reward, terminated, info


def uniform_policy(space: Any) -> Callable[[Any, Any], Any]:
    """``(key, obs) -> action`` uniform over a Discrete or a bounded Box space."""
    if hasattr(space, "n"):
        return lambda key, obs: jax.random.randint(key, (), int(space.start), int(space.start + space.n))
    low, high = np.asarray(getattr(space, "low", np.inf)), np.asarray(getattr(space, "high", np.inf))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError(f"uniform actions need a Discrete or bounded Box space, got {space}; give a policy.")
    return lambda key, obs: jax.random.uniform(key, space.shape, minval=jnp.asarray(low), maxval=jnp.asarray(high))


def recorded_samples(trajectory: Transition) -> Samples:
    """Samples from recorded transitions ``[T, B]`` or ``[B]``: one successor each; masked rows are left out.

    What they can show is in ``guarantees``: scale and shaping are removed exactly, redistribution is not, and the
    policy of the values is the one that recorded them.

    Args:
        trajectory: leaves ``[T, B, ...]`` (a column is a group, and rewards with memory can be scored), or ``[B, ...]``
            of unrelated transitions.

    Returns:
        :class:`Samples` with K = 1.

    Raises:
        ValueError: without a single unmasked row.
    """
    mask = np.asarray(trajectory.mask, bool)
    rows = np.flatnonzero(mask.reshape(-1))
    if not rows.size:
        raise ValueError(f"recorded transitions are empty (mask of shape {mask.shape}); record some, or set the mask.")
    lead = mask.ndim
    pick = lambda x: np.asarray(x).reshape(-1, *np.shape(x)[lead:])[rows]  # noqa: E731
    flat = jax.tree.map(pick, trajectory)
    one = lambda x: x[:, None]  # noqa: E731
    lanes = np.broadcast_to(np.arange(mask.shape[-1]), mask.shape).reshape(-1)[rows]
    return Samples(
        flat.obs, flat.action, jax.tree.map(one, flat.next_obs), np.asarray(one(flat.reward), float),
        one(flat.terminated), jax.tree.map(one, dict(flat.info)), lanes, RECORDED,
        trajectory=trajectory if lead == 2 else None, rows=rows,
    )  # fmt: skip


def check_sizes(num_samples: int, num_next: int) -> None:
    """Raise a ValueError unless there are samples and successors."""
    if num_samples < 2 or num_next < 1:
        raise ValueError(
            f"sampling needs num_samples of at least 2 and num_next of at least 1, got {num_samples} and {num_next}."
        )
