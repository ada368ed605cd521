"""Repair a watch or not: how many episodes until the choice is right, by returns, by TD, by redistributed rewards.

    python benchmarks/watch_repair.py                              # all methods, ten seeds, the table
    python benchmarks/watch_repair.py --methods rudder --first-seed 100 --seeds 3

The demonstration task of RUDDER. One decision at the start of an episode of 50 steps; what it was worth is paid at the
end, buried in the costs of a delivery that nobody can influence (a standard deviation of 11, where choices differ by
1.5 and 3.5). The agent is the published one: a table of values, greedy but for 10 % of random actions, optimistic at
first, a learning rate of 0.1; it is done when 95 % of its last 750 decisions were good. ``mc`` moves the value of a
decision towards the return, ``td`` learns the values of all states by Q-learning, the others move it towards what the
redistributed reward pays for the first step. Settings of the estimator were tried on seeds 100 to 102.

Source: the task and the agent of Arjona-Medina et al., "RUDDER", 2019, arXiv:1806.07857, as demonstrated by its
authors, who give 1,900 to 3,800 episodes for RUDDER, 71,800 to 71,900 for TD and 27,700 to more than 240,000 for MC.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from gymnasium import spaces

from reward_design.agents import rollout, scoring
from reward_design.core import Reward, Transition
from reward_design.envs.base import FunctionalEnv, example_transition
from reward_design.redistribution import Fit, rrd, rudder, spa

PRICE = np.array([18.0, 28.0, 31.0, 59.0])
REPAIR, REPAIR_DEVIATION = np.array([1.0, 4.0, 5.0, 24.5]), np.array([2.0, 2.0, 2.0, 1.0])
DELIVERY, DELIVERY_DEVIATION = np.array([0.5, 2.5, 4.5, 18.0]), 1.5
CHANCE, COST = np.array([0.1, 0.05]), np.array([0.1, 7.0])
"""Of a traffic jam and of a flat tyre, in each step."""
STEPS, WINDOW, SHARE, LEARNING_RATE, EPSILON, OPTIMISM = 50, 750, 0.95, 0.1, 0.1, 10.0
FIT = Fit(capacity=2048, batch_size=32, num_updates=50, min_episodes=256, learning_rate=1e-2, normalise=False, l2=0.0)
METHODS: dict[str, Callable[[], Reward]] = {
    "rudder": lambda: rudder(max_length=STEPS, width=16, features=watch_features, fit=FIT),
    "spa": lambda: spa(max_length=STEPS, features=watch_features, correction="equal", hidden=(32,), fit=FIT),
    "rrd": lambda: rrd(
        max_length=STEPS, num_steps=16, features=watch_features, correction="equal", hidden=(32,), fit=FIT
    ),
}
LANES = 25
"""Episodes that are played with the same values, and after which an estimator learns."""
EPISODES = {"mc": 250_000, "td": 150_000}
"""Episodes after which a run is given up, where that is not 10,000."""


class WatchRepair(FunctionalEnv):
    """Action 0 in the first step repairs the watch; all others do nothing.

    The observation is ``[repaired, jams so far, flat tyres so far, steps so far, one-hot brand (4)]``. A repaired watch
    costs its repair at once, and is sold at the end for its price less the cost of delivery.
    """

    name = "watch_repair"
    horizon, gamma = STEPS, 1.0

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0.0, float(STEPS), (8,), np.float32)
        self.action_space = spaces.Discrete(2)

    def _reset(self, key: Any) -> tuple[Any, Any]:
        brand = jax.nn.one_hot(jax.random.randint(key, (), 0, len(PRICE)), len(PRICE))
        obs = jnp.concatenate([jnp.zeros(4), brand])
        return obs, obs

    def _step(self, key: Any, inner: Any, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        event_key, repair_key, delivery_key = jax.random.split(key, 3)
        brand, first = inner[4:], inner[3] == 0
        repaired = jnp.where(first, (action == 0) * 1.0, inner[0])
        events = inner[1:3] + jax.random.bernoulli(event_key, CHANCE)
        time = inner[3] + 1
        ended = time == STEPS
        repair = brand @ (REPAIR + REPAIR_DEVIATION * jax.random.normal(repair_key))
        delivery = brand @ DELIVERY + DELIVERY_DEVIATION * jax.random.normal(delivery_key) + events @ COST
        reward = repaired * (ended * (brand @ PRICE - delivery) - first * repair)
        obs = jnp.concatenate([jnp.stack([repaired]), events, jnp.stack([time]), brand])
        return obs, obs, reward, ended, {}

    def success(self, transition: Transition) -> Any:
        """True at the end of an episode whose decision was the better one."""
        repaired = jnp.asarray(transition.next_obs)[..., 0] == 1
        return jnp.asarray(transition.terminated) & (repaired == _pays(transition.next_obs))


ENV = WatchRepair()


def value_of_repair() -> np.ndarray:
    """Expected return ``[4]`` of repairing a watch of each brand: -1.5, 3.5, 3.5 and -1.5; leaving it is worth 0."""
    return PRICE - REPAIR - DELIVERY - STEPS * CHANCE @ COST


def watch_features(transition: Transition) -> Any:
    """``[B, 9]``: brand and decision in the first step, and what each step changed, as in the demonstration."""
    obs, change = jnp.asarray(transition.obs), jnp.asarray(transition.next_obs) - jnp.asarray(transition.obs)
    first = (obs[:, 3] == 0)[:, None]
    decision = jax.nn.one_hot(transition.action, 2)
    return jnp.concatenate([first * obs[:, 4:], first * decision, change[:, :3]], axis=1)


# --- the agent -------------------------------------------------------------------------------------------------------


def played(q: Any, key: Any) -> Transition:
    """One episode ``[STEPS, LANES]`` per lane: greedy by ``q [4, 2]`` but for random decisions."""
    reset_key, env_key, act_key = jax.random.split(key, 3)
    start = rollout.reset_lanes(ENV, reset_key, LANES, ())

    def act(obs: Any, key: Any) -> Any:
        tie_key, random_key, choice_key = jax.random.split(key, 3)
        value = obs[:, 4:] @ q
        best = jnp.argmax(value + 1e-6 * jax.random.uniform(tie_key, value.shape), axis=1)
        random = jax.random.bernoulli(random_key, EPSILON, best.shape)
        choice = jnp.where(random, jax.random.randint(choice_key, best.shape, 0, 2), best)
        return jnp.where(obs[:, 3] == 0, choice, 1), ()

    return rollout.collect(ENV, act, start, env_key, jax.random.split(act_key, STEPS), STEPS)[1]


def moved(q: Any, decided: tuple[Any, Any], target: Any) -> Any:
    """Values ``[4, 2]`` after one decision after the other has moved its own towards its target ``[LANES]``."""

    def one(q: Any, xs: Any) -> tuple[Any, None]:
        brand, action, target = xs
        return q.at[brand, action].add(LEARNING_RATE * (target - q[brand, action])), None

    return jax.lax.scan(one, q, (*decided, target))[0]


def td_targets(values: Any, batch: Transition) -> tuple[Any, Any]:
    """Values of all states after Q-learning on one episode after the other, and the targets ``[LANES]`` of decisions.

    Args:
        values: ``[repaired, jams, tyres, brand, steps]``; of states at the end 0.
        batch: ``[STEPS, LANES]``.
    """

    def one(values: Any, xs: Any) -> tuple[Any, Any]:
        state, reward = xs
        index = (*state[:, :3].astype(int).T, jnp.argmax(state[:, 4:], axis=1), state[:, 3].astype(int))
        following = values[index]  # of the state after each step
        target = reward + following
        before = tuple(i[:-1] for i in index)  # the states of all decisions but the first
        return values.at[before].add(LEARNING_RATE * (target[1:] - following[:-1])), target[0]

    lanes = (jnp.swapaxes(jnp.asarray(batch.next_obs), 0, 1), jnp.asarray(batch.reward).T)
    return jax.lax.scan(one, values, lanes)


@partial(jax.jit, static_argnames=("method", "num_batches"))
def train(method: str, num_batches: int, key: Any) -> tuple[Any, Any]:
    """A run: whether decisions were good ``[num_batches, LANES]``, and the last values ``[4, 2]``."""
    key, init_key = jax.random.split(key)
    q = jnp.full((len(PRICE), 2), OPTIMISM)
    example = example_transition(ENV, LANES)
    reward = METHODS[method]() if method in METHODS else None
    memory: Any = jnp.full((2, STEPS + 1, STEPS + 1, len(PRICE), STEPS + 1), OPTIMISM).at[..., STEPS].set(0.0)
    if reward is not None:
        params, state = reward.init(init_key, example)
        memory = (params, state, scoring.learner_state(reward, init_key, params, example))
    elif method == "mc":
        memory = ()

    def batch_of(carry: Any, key: Any) -> tuple[Any, Any]:
        q, memory = carry
        batch = played(q, key)
        if reward is not None:
            params, state, learned = memory
            params, learned, _ = scoring.learned_reward(reward, params, learned, batch, key)
            output, state = reward.unroll(params, state, batch)
            memory, target = (params, state, learned), output.reward[0]
        elif method == "td":
            memory, target = td_targets(memory, batch)
        else:
            target = jnp.asarray(batch.reward).sum(axis=0)
        obs, action = jnp.asarray(batch.obs)[0], jnp.asarray(batch.action)[0]
        good = (action == 0) == _pays(obs)
        return (moved(q, (jnp.argmax(obs[:, 4:], axis=1), action), target), memory), good

    (q, _), good = jax.lax.scan(batch_of, (q, memory), jax.random.split(key, num_batches))
    return good, q


def _pays(obs: Any) -> Any:
    return jnp.asarray(obs)[..., 4:] @ (value_of_repair() > 0) > 0


# --- output ----------------------------------------------------------------------------------------------------------


def episodes_needed(good: np.ndarray) -> int | None:
    """Number of the episode with which ``SHARE`` of the last ``WINDOW`` decisions were good, if there is one."""
    total = np.cumsum(np.concatenate([[0], good]))
    share = (total[WINDOW:] - total[:-WINDOW]) / WINDOW
    return int(np.argmax(share >= SHARE)) + WINDOW if (share >= SHARE).any() else None


Method = Literal["rudder", "spa", "rrd", "td", "mc"]


@dataclasses.dataclass
class Args:
    """Settings of the benchmark.

    Attributes:
        methods: what the values are learned from.
        seeds: runs of each.
        first_seed: the number of the first.
    """

    methods: tuple[Method, ...] = ("rudder", "spa", "rrd", "td", "mc")
    seeds: int = 10
    first_seed: int = 0


def main(args: Args) -> None:
    """Run all methods and print the table."""
    if args.seeds < 1:
        raise SystemExit(f"seeds must be at least 1, got {args.seeds}.")
    print("| method | done | episodes, median | least | most | value of repair by brand, last, mean over seeds |")
    print(f"|{'---|' * 6}")
    keys = jax.vmap(jax.random.key)(np.arange(args.first_seed, args.first_seed + args.seeds, dtype=np.uint32))
    for method in args.methods:
        episodes = EPISODES.get(method, 10_000)
        good, q = jax.vmap(partial(train, method, episodes // LANES))(keys)
        print(f"| {method} | {_row(np.asarray(good).reshape(args.seeds, -1), episodes, np.asarray(q))} |", flush=True)


def _row(good: np.ndarray, episodes: int, q: np.ndarray) -> str:
    needed: Sequence[int | None] = [episodes_needed(run) for run in good]
    number = sum(n is not None for n in needed)
    order = sorted(episodes + 1 if n is None else n for n in needed)
    words = [f"{n:,.0f}" if n <= episodes else f"> {episodes:,}" for n in (np.median(order), order[0], order[-1])]
    return " | ".join([f"{number} of {len(needed)}", *words, ", ".join(f"{v:.1f}" for v in q[..., 0].mean(axis=0))])


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
