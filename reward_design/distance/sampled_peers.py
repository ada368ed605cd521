"""EPIC and DARD from samples, as the norm of a difference: 0 for a reward against itself, not 1.7e-4.

Sources: Gleave et al., "Quantifying Differences in Reward Functions", ICLR 2021, arXiv:2006.13900; Wulfe et al.,
"Dynamics-Aware Comparison of Learned Reward Functions", ICLR 2022, arXiv:2201.10081.
"""

from typing import Any

import jax
import numpy as np

from reward_design.core import Transition
from reward_design.distance.samples import Samples
from reward_design.distance.scoring import Sampled, table_or_reward
from reward_design.envs import exact

_CHUNK = 2**18
"""Transitions scored at a time."""


def sampled_epic(
    reward_a: Sampled, reward_b: Sampled, samples: Samples, *, gamma: float, num_mean: int = 256, seed: int = 0
) -> float:
    """EPIC distance from samples: √((1 - ρ)/2), ρ the Pearson correlation of C(A) and C(B) over the samples.

    C(R)(s, a, s') = R(s, a, s') + mean_j [γ R(s', a_j, s_j) - R(s, a_j, s_j)] - γ mean_ij R(s_i, a_j, s_j), with
    one list of ``num_mean`` pairs (a_j, s_j), drawn from the samples, for all rewards and states: shaping is therefore
    removed exactly at any size of the list.

    Args:
        reward_a: a :class:`Reward` of kind POINTWISE that reads neither ``reward`` nor ``info`` of a transition, or a
            table ``[S, A, S]``.
        reward_b: the same.
        samples: coverage; of the successors the first is used.
        gamma: discount per step, in [0, 1].
        num_mean: length of the list; the number of transitions scored is (2 N + num_mean) · num_mean + N.
        seed: of the list.

    Returns:
        Distance in [0, 1]; 1/2 to a reward that is shaping only.

    Raises:
        TypeError: for rewards of another kind, or values without a rule.
        ValueError: if a reward is not finite on some transition, as one is that reads what was not sampled.

    Example:
        >>> from reward_design.distance import sample_tabular
        >>> from reward_design.envs import task
        >>> model = task("chain").tabular()
        >>> batch = sample_tabular(model, num_samples=100)
        >>> sampled_epic(model.reward, 3 * model.reward, batch, gamma=0.9) < 1e-12
        True
    """
    exact.check_discount(gamma, one_allowed=True)
    chosen = np.random.default_rng(seed).integers(samples.num_samples, size=num_mean)
    action, after = _rows(samples.action, chosen), _rows(_first(samples.next_obs), chosen)

    def canonical(reward: Sampled) -> np.ndarray:
        score = table_or_reward(reward, samples)
        mean = lambda obs: _mean_from(score, obs, action, after)  # noqa: E731
        start, end = mean(samples.obs), mean(_first(samples.next_obs))
        return _observed(score, samples) + gamma * end - start - gamma * mean(after).mean()

    sizes = [np.abs(_observed(table_or_reward(reward, samples), samples)).max() for reward in (reward_a, reward_b)]
    return _pearson(canonical(reward_a), canonical(reward_b), sizes)


def sampled_dard(
    reward_a: Sampled, reward_b: Sampled, samples: Samples, *, gamma: float, num_mean: int = 16, seed: int = 0
) -> float:
    """DARD distance from samples of a simulator that can be set back.

    C(R)(s, a, s') = R(s, a, s') + mean_j [γ R(s', a_j, s''_j) - R(s, a_j, s'_j) - γ R(s'_j, a_j, s''_j)], where s'_j
    and s''_j are successors of s and s' under a_j. The same draws serve both rewards, so shaping is removed exactly.

    Args:
        reward_a: as in :func:`sampled_epic`.
        reward_b: the same.
        samples: from :func:`sample_tabular` or :func:`sample_functional`; of the successors the first is used.
        gamma: discount per step, in [0, 1].
        num_mean: actions a_j per sample, drawn from the samples.
        seed: of the draws.

    Returns:
        Distance in [0, 1].

    Raises:
        TypeError: for samples without a simulator, or rewards of another kind.
        ValueError: if a reward is not finite on some transition.

    Example:
        >>> from reward_design.distance import sample_tabular
        >>> from reward_design.envs import task
        >>> model = task("chain").tabular()
        >>> batch = sample_tabular(model, num_samples=100)
        >>> round(sampled_dard(model.reward, -model.reward, batch, gamma=0.9), 9)
        1.0
    """
    exact.check_discount(gamma, one_allowed=True)
    if samples.simulate is None or samples.states is None:
        raise TypeError(
            "sampled_dard needs samples of a simulator that can be set back (sample_tabular, sample_functional), got "
            "samples without one; use sampled_epic or sampled_starc."
        )
    scorers = [table_or_reward(reward, samples) for reward in (reward_a, reward_b)]
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    here, there = samples.states[0], _first(samples.states[1])
    start, end = samples.obs, _first(samples.next_obs)
    total = [_observed(score, samples) for score in scorers]
    sizes = [np.abs(values).max() for values in total]
    for _ in range(num_mean):
        key, first, second = jax.random.split(key, 3)
        action = _rows(samples.action, rng.integers(samples.num_samples, size=samples.num_samples))
        near = samples.simulate(first, here, action)[0]
        far = samples.simulate(second, there, action)[0]
        for i, score in enumerate(scorers):
            paid = gamma * _score(score, end, action, far) - _score(score, start, action, near)
            total[i] = total[i] + (paid - gamma * _score(score, near, action, far)) / num_mean
    return _pearson(total[0], total[1], sizes)


# --- parts ----------------------------------------------------------------------------------------------------------


def _first(tree: Any) -> Any:
    return jax.tree.map(lambda x: x[:, 0], tree)


def _rows(tree: Any, index: np.ndarray) -> Any:
    return jax.tree.map(lambda x: np.asarray(x)[index], tree)


def _observed(score: Any, samples: Samples) -> np.ndarray:
    return _score(score, samples.obs, samples.action, _first(samples.next_obs))


def _score(score: Any, obs: Any, action: Any, next_obs: Any) -> np.ndarray:
    """Rewards of transitions that nobody made: what the environment would pay is unknown, NaN."""
    num = len(jax.tree.leaves(action)[0])
    no = np.zeros(num, bool)
    values = score(Transition(obs, action, next_obs, np.full(num, np.nan), no, no, ~no, {}))
    if not np.isfinite(values).all():
        raise ValueError(
            f"a reward is {values[~np.isfinite(values)][0]} on a transition that was not sampled: EPIC and DARD "
            "evaluate rewards there, and what the environment pays (reward, info) is not known; give a reward of obs, "
            "action and next_obs alone, or use sampled_starc."
        )
    return values


def _mean_from(score: Any, obs: Any, action: Any, after: Any) -> np.ndarray:
    """Mean reward from each observation over the list of pairs."""
    num, size = len(jax.tree.leaves(obs)[0]), len(jax.tree.leaves(action)[0])
    step, result = max(1, _CHUNK // size), []
    for at in range(0, num, step):
        rows = jax.tree.map(lambda x, at=at: np.repeat(np.asarray(x)[at : at + step], size, axis=0), obs)
        count = min(step, num - at)
        tile = lambda x, count=count: np.tile(x, (count, *[1] * (np.ndim(x) - 1)))  # noqa: E731
        values = _score(score, rows, jax.tree.map(tile, action), jax.tree.map(tile, after))
        result.append(values.reshape(count, size).mean(1))
    return np.concatenate(result)


def _pearson(x: np.ndarray, y: np.ndarray, sizes: list[Any]) -> float:
    """Half the norm of the difference of the standardised values; ``sizes``: the largest |R|, of which 1e-10 is 0."""
    units = []
    for values, largest in zip((x, y), sizes, strict=True):
        centred = values - values.mean()
        size = np.sqrt((centred**2).mean())
        units.append(centred / (size if size > 1e-10 * largest else np.inf) / np.sqrt(len(values)))
    return float(min(0.5 * np.linalg.norm(units[0] - units[1]), 1.0))
