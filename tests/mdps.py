"""Random episodic MDPs, their exact solutions in NumPy float64, and rewards of this package on every (s, a, s')."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reward_design import Reward, Transition


class Mdps(NamedTuple):
    """``num`` random MDPs; the last state of each is terminal."""

    transition: np.ndarray
    reward: np.ndarray
    phi: np.ndarray
    advice: np.ndarray


def random_mdps(num: int = 200, states: int = 6, actions: int = 3, seed: int = 0) -> Mdps:
    """Dirichlet(0.6) transitions, N(0, 1) rewards, N(0, 9) potentials of states and of state-action pairs."""
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.full(states, 0.6), (num, states, actions))
    transition[:, -1] = np.eye(states)[-1]
    reward = rng.normal(size=(num, states, actions, states))
    reward[:, -1] = 0
    advice = 3 * rng.normal(size=(num, states, actions))
    return Mdps(transition, reward, 3 * rng.normal(size=(num, states)), advice)


class Table:
    """A potential that is looked up: ``params[state]`` or ``params[state, action]``."""

    def __init__(self, *shape: int):
        self.shape = shape

    def init(self, key: Any, *inputs: Any) -> Any:
        """Zeros; tests put their own values in."""
        return jnp.zeros(self.shape)

    def apply(self, params: Any, *inputs: Any) -> Any:
        """Values of the inputs."""
        return params[tuple(inputs)]


def reward_tables(
    reward: Reward, mdps: Mdps, potential: Any, *, tell_the_end: bool = True, next_action: Any = None
) -> np.ndarray:
    """``[num, S, A, S]`` rewards with ``potential`` (leading axis num) as the params of every potential."""
    num, states, actions, _ = mdps.reward.shape
    s, a, n = (x.ravel() for x in np.indices((states, actions, states)))
    flags = np.zeros(s.shape, bool)
    end = (n == states - 1) & tell_the_end
    following = np.zeros((num, s.size), int) if next_action is None else next_action[:, n]
    row = Transition(s, a, n, mdps.reward[0].ravel(), end, flags, ~flags, {"next_action": following[0]})
    params, state = reward.init(jax.random.key(0), row)
    is_potential = lambda path: path[-1] == jax.tree_util.DictKey("potential")  # noqa: E731
    batched = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.asarray(potential) if is_potential(path) else jnp.stack([x] * num), params
    )

    def one(params: Any, values: Any, action: Any) -> Any:
        transition = row._replace(reward=values, info={"next_action": action})
        return reward.step(params, state, transition)[0].reward

    tables = jax.jit(jax.vmap(one))(batched, mdps.reward.reshape(num, -1), following)
    tables = np.array(tables).reshape(mdps.reward.shape)
    tables[:, -1] = 0
    return tables


def action_values(transition: np.ndarray, reward: np.ndarray, gamma: float, *, temperature: float = 0.0) -> np.ndarray:
    """Optimal (or soft-optimal) ``[num, S, A]`` by value iteration; the last state is terminal."""
    expected = (transition * reward).sum(-1)
    q = np.zeros_like(expected)
    for _ in range(int(np.ceil(np.log(1e-13) / np.log(gamma)))):
        top = q.max(-1)
        v = top if not temperature else top + temperature * np.log(np.exp((q - top[..., None]) / temperature).sum(-1))
        v[:, -1] = 0
        q = expected + gamma * np.einsum("nsat,nt->nsa", transition, v)
    return q


def policy_action_values(transition: np.ndarray, reward: np.ndarray, policy: np.ndarray, gamma: float) -> np.ndarray:
    """``[num, S, A]`` of deterministic policies ``[num, S]``."""
    q = np.zeros(reward.shape[:3])
    for _ in range(int(np.ceil(np.log(1e-13) / np.log(gamma)))):
        v = np.take_along_axis(q, policy[..., None], axis=-1)[..., 0]
        v[:, -1] = 0
        q = (transition * (reward + gamma * v[:, None, None, :])).sum(-1)
    return q


def share_of_flips(q: np.ndarray, other: np.ndarray) -> float:
    """Share of MDPs in which the greedy policy differs in some state that is not terminal."""
    return float((q.argmax(-1) != other.argmax(-1))[:, :-1].any(-1).mean())
