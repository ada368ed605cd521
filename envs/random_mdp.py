"""Random MDPs, the usual testing ground of reward distances."""

import numpy as np
from jaxtyping import Float

from reward_design.combinators import environment_reward
from reward_design.constructors import pointwise
from reward_design.core import Transition
from reward_design.envs.base import Factor, Tabular, Task
from reward_design.envs.tabular import TabularEnv
from reward_design.envs.tabular_model import optimal_values
from reward_design.envs.tabular_parts import Lookup, OneOf, Quantity, goal_task, quantity_reward

DESCRIPTION = """A random Markov decision process without any geometry: {num_states} states and {num_actions}
actions; each action in each state leads to a few random successors with random probabilities, fixed by the seed
{seed}. Episodes start in a random state. The observation is the index of the state. {reward_text} An episode is cut
after {horizon} steps."""


def random_mdp(
    *,
    num_states: int = 32,
    num_actions: int = 4,
    seed: int = 0,
    num_goals: int = 0,
    horizon: int = 100,
    gamma: float = 0.95,
) -> Task:
    """Random MDP; without goals it never terminates and pays a random amount for every transition.

    Source: the recipe of the experiments of J. Skalse et al., "STARC: a general framework for quantifying differences
    between reward functions", 2024 (arXiv 2309.15257), see :func:`random_transition`.

    Args:
        num_states: number of states S.
        num_actions: number of actions A.
        seed: of the dynamics and the rewards.
        num_goals: number of terminal states; if there are any, the environment pays 1 for reaching one, else 0.
        horizon: steps after which an episode is truncated.
        gamma: discount per step, in [0, 1).

    Returns:
        The task ``random_mdp``.

    Raises:
        ValueError: if there are no states left to start from.

    Example:
        >>> random_mdp(num_states=8, num_actions=2, seed=1).tabular().reward.shape
        (8, 2, 8)
    """
    if num_actions < 1 or not 0 <= num_goals < num_states:
        raise ValueError(
            "random_mdp needs at least one action and more states than goals, got "
            f"num_states={num_states}, num_actions={num_actions}, num_goals={num_goals}."
        )
    rng = np.random.default_rng(seed)
    transition = random_transition(rng, num_states, num_actions)
    noise = rng.normal(size=transition.shape)
    goals = np.arange(num_states) >= num_states - num_goals
    transition[goals] = np.eye(num_states)[goals][:, None]
    possible = (transition > 0) & ~goals[:, None, None]
    reward = np.where(possible, (1.0 * goals if num_goals else noise), 0.0)
    initial = ~goals / (~goals).sum()
    model = Tabular(transition, reward, initial, float(gamma), goals, np.arange(num_states, dtype=np.int32))
    text = DESCRIPTION.format(
        num_states=num_states, num_actions=num_actions, seed=seed, horizon=horizon, reward_text=_reward_text(num_goals)
    )
    return _with_goals(text, model, horizon) if num_goals else _without_goals(text, model, horizon)


def random_transition(rng: np.random.Generator, num_states: int, num_actions: int) -> Float[np.ndarray, "S A S"]:
    """Random dynamics: softmax over the successors whose standard normal logit exceeds a threshold.

    The threshold is 1 below 50 states, 1.5 below 100 and 1.8 from there on, so that a row has a handful of successors;
    the largest logit of a row is always kept. The other successors are impossible (the published recipe leaves them a
    probability of about 1e-9).

    Args:
        rng: source of randomness.
        num_states: S.
        num_actions: A.
    """
    threshold = 1.0 if num_states < 50 else 1.5 if num_states < 100 else 1.8
    logits = rng.normal(size=(num_states, num_actions, num_states))
    kept = logits > np.minimum(threshold, 0.999 * logits.max(-1, keepdims=True))
    weights = np.where(kept | (logits == logits.max(-1, keepdims=True)), np.exp(logits), 0.0)
    return weights / weights.sum(-1, keepdims=True)


def random_reward(rng: np.random.Generator, num_states: int, num_actions: int, *, gamma: float) -> np.ndarray:
    """Random reward of the same experiments, for comparing rewards on one MDP.

    Standard normal on (s, a, s'); with probability 0.2 sparse (zero unless above a threshold), 0.7 scaled, 0.3 moved,
    0.5 shaped with a random potential.

    Args:
        rng: source of randomness.
        num_states: S.
        num_actions: A.
        gamma: discount of the shaping.

    Returns:
        ``[S, A, S]``.
    """
    reward = rng.normal(size=(num_states, num_actions, num_states))
    if rng.uniform() < 0.2:
        reward = np.where(reward > (3.0 if num_states < 50 else 3.5 if num_states < 100 else 3.8), reward, 0.0)
    if rng.uniform() < 0.7:
        reward = reward * 10 * rng.uniform()
    if rng.uniform() < 0.3:
        reward = reward + 10 * rng.uniform()
    if rng.uniform() < 0.5:
        phi = rng.normal(size=num_states) * 10 * rng.uniform() + rng.uniform()
        reward = reward + gamma * phi[None, None] - phi[:, None, None]
    return reward


def _reward_text(num_goals: int) -> str:
    if num_goals:
        return f"The last {num_goals} states are goals: reaching one pays 1 and ends the episode; nothing else pays."
    return "Every transition pays a fixed random amount, about as often negative as positive; episodes never terminate."


def _popularity(model: Tabular) -> Quantity:
    """How many transitions lead to the successor, relative to the most popular state."""
    visits = (model.transition * ~model.terminal[:, None, None]).sum((0, 1)) * ~model.terminal
    popularity = Lookup(visits / max(visits.max(), 1e-12))
    return lambda t: popularity(t.next_obs)


def _popularity_factor(model: Tabular) -> Factor:
    return Factor(_popularity(model), "1", +1, "how easily the new state is reached under random actions, 1 at most")


def _with_goals(description: str, model: Tabular, horizon: int) -> Task:
    return goal_task(
        "random_mdp",
        description,
        model,
        model.terminal,
        horizon=horizon,
        misaligned=quantity_reward("misaligned", _popularity(model), weight=1.0),
        factors={"popularity": _popularity_factor(model)},
    )


def _without_goals(description: str, model: Tabular, horizon: int) -> Task:
    """The event of this task is a jackpot: one of the best-paid hundredth of all possible transitions."""
    jackpots = (model.transition > 0) & (model.reward >= np.quantile(model.reward[model.transition > 0], 0.99))
    success, pay_table = OneOf(jackpots), Lookup(model.reward)
    values = optimal_values(model)[0]
    phi = Lookup((values - values.min()) / max(np.ptp(values), 1e-12))

    def pay(transition: Transition):
        return pay_table((transition.obs, transition.action, transition.next_obs))

    def jackpot(transition: Transition):
        return success(transition).astype(float)

    def gain(transition: Transition):
        return phi(transition.next_obs) - phi(transition.obs)

    def dense(params, transition):
        terms = {"pay": params["pay"] * pay(transition), "gain": params["gain"] * gain(transition)}
        return terms["pay"] + terms["gain"], terms

    weights = {"pay": 1.0, "gain": 1.0}
    return Task(
        name="random_mdp",
        description=" ".join(description.split()),
        env=TabularEnv("random_mdp", model, horizon=horizon, success=success),
        true_reward=environment_reward(),
        sparse_reward=quantity_reward("sparse", jackpot, weight=1.0),
        dense_reward=pointwise("dense", dense, params=weights, settings=weights),
        factors={
            "jackpot": Factor(jackpot, "1", +1, "1 on one of the best-paid hundredth of the transitions, else 0"),
            "pay": Factor(pay, "1", +1, "what the transition pays"),
            "gain": Factor(gain, "1", +1, "by how much the long-term value of the state rose, on a scale of 0 to 1"),
            "popularity": _popularity_factor(model),
        },
        potential=phi,
        auxiliary={
            "aligned": quantity_reward("aligned", gain, weight=0.5),
            "misaligned": quantity_reward("misaligned", _popularity(model), weight=20.0),
        },
    )
