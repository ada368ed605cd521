"""The arithmetic of sampled distances: moments, linear systems, bootstrap, and shaping outside the span."""

import numpy as np

from reward_design.distance import features as feature_maps
from reward_design.distance.samples import Samples


def inner(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """⟨x, y⟩ over ``[N, K, ...]``: mean of x_k y_l over k ≠ l, or over k if there is one successor."""
    num_next = x.shape[1]
    if num_next == 1:
        return (x[:, 0] * y[:, 0]).mean(0)
    return ((x.sum(1) * y.sum(1) - (x * y).sum(1)) / (num_next * (num_next - 1))).mean(0)


def _cross(z: np.ndarray) -> np.ndarray:
    """``[C, C]`` sum over N of the products of ``[N, K, C]``, as :func:`_inner` without the mean."""
    num_next, total = z.shape[1], z.sum(1)
    if num_next == 1:
        return total.T @ total
    flat = z.reshape(-1, z.shape[-1])
    return (total.T @ total - flat.T @ flat) / (num_next * (num_next - 1))


def system(here: np.ndarray, flow: np.ndarray, values: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Matrix ``[F, F]`` and right-hand sides ``[F, M]`` of θ."""
    if method == "val":
        return here.T @ flow.mean(1), here.T @ values.mean(1)
    num = flow.shape[-1]
    both = _cross(np.concatenate([flow, values], axis=-1))
    return both[:num, :num], both[:num, num:]


def solved(equations: tuple[np.ndarray, np.ndarray], method: str) -> np.ndarray:
    """θ ``[F, M]``; a ValueError if the samples do not determine it."""
    matrix, right = equations
    if not matrix.size:
        return np.zeros_like(right)
    if np.linalg.cond(matrix) > 1e13:
        other = " or canonicalisation='minimal_weighted'" if method == "val" else ""
        raise ValueError(
            f"the samples do not determine the values of {len(matrix)} features (the system is singular: some feature "
            f"occurs in successors and never in states); take more samples or fewer features{other}."
        )
    return np.linalg.solve(matrix, right)


def between(standard: np.ndarray) -> np.ndarray:
    """All pairs of ``[N, K, M]``, by the norm of the difference."""
    num = standard.shape[-1]
    result = np.zeros((num, num))
    for i in range(num):
        apart = standard - standard[..., i : i + 1]
        result[i] = np.sqrt(np.clip(inner(apart, apart), 0.0, 4.0))
    return np.minimum((result + result.T) / 2, 2.0)


def bootstrap(
    here: np.ndarray, flow: np.ndarray, values: np.ndarray, group: np.ndarray, blank: np.ndarray, method: str,
    confidence: float, num_resamples: int, seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Percentile interval over resampled blocks, from second moments of each block; and which norms may be 0."""
    num = flow.shape[-1]
    blocks = _blocks(group)
    moments = np.stack([_cross(np.concatenate([flow[b], values[b]], axis=-1)) for b in blocks])
    lstd = [np.concatenate(system(here[b], flow[b], values[b], "val"), axis=1) for b in blocks]
    lstd = np.stack(lstd) if method == "val" else moments[:, :num]
    counts = np.random.default_rng(seed).multinomial(len(blocks), [1 / len(blocks)] * len(blocks), num_resamples)
    drawn, squares = [], []
    for count in counts.astype(float):
        square, both = np.tensordot(count, moments, 1), np.tensordot(count, lstd, 1)
        theta = np.linalg.lstsq(both[:, :num], both[:, num:], rcond=None)[0]
        u = np.concatenate([-theta, np.eye(values.shape[-1])])
        gram = u.T @ square @ u
        squares.append(np.diag(gram))
        size = np.where(blank | (squares[-1] <= 0), np.inf, np.sqrt(np.maximum(squares[-1], 0)))
        cosine = np.clip(gram / size[:, None] / size[None, :], -1, 1)
        unit = np.isfinite(size).astype(float)
        drawn.append(np.sqrt(np.maximum(unit[:, None] + unit[None, :] - 2 * cosine, 0)))
    ends = np.quantile(np.array(drawn), [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    for end in ends:
        np.fill_diagonal(end, 0.0)
    return ends[0], ends[1], np.quantile(np.array(squares), (1 - confidence) / 2, axis=0) <= 0


def _blocks(group: np.ndarray, most: int = 100) -> list[np.ndarray]:
    """Rows by blocks of whole groups; a few long lanes are cut into runs of consecutive rows."""
    names, number = np.unique(group, return_inverse=True)
    if len(names) >= 20:
        block = number * min(most, len(names)) // len(names)
        return [np.flatnonzero(block == b) for b in range(block.max() + 1)]
    order = np.argsort(number, kind="stable")
    return [part for part in np.array_split(order, min(most, max(2, len(group) // 4))) if part.size]


def outside_span(standard: np.ndarray, samples: Samples, flow: np.ndarray, gamma: float, seed: int) -> np.ndarray:
    """How much better new random potentials explain each difference than the span does, on the half held out."""
    num = standard.shape[-1]
    if feature_maps.is_index(samples.obs):
        rich = lambda x: np.asarray(x)[:, None] == np.unique(np.asarray(samples.transitions().next_obs))  # noqa: E731
    else:
        rich = feature_maps.smooth_features(samples.obs, num_random=min(200, len(flow) // 20), seed=seed + 1)
    here = np.asarray(rich(samples.obs), float)
    after = np.asarray(rich(samples.transitions().next_obs), float).reshape(*samples.reward.shape, -1)
    extra = (here[:, None] - gamma * after * ~samples.terminated[..., None]).mean(1)
    base = flow.mean(1)
    i, j = np.triu_indices(num, 1)
    apart = (standard[..., i] - standard[..., j]).mean(1)
    half = np.random.default_rng(seed).random(len(apart)) < 0.5
    result = np.zeros((num, num))
    if half.all() or not half.any() or not len(i):
        return result
    left = {name: _left_over(x, apart, half) for name, x in (("base", base), ("rich", np.hstack([base, extra])))}
    total = (apart[~half] ** 2).sum(0)
    gain = np.where(total > 1e-10 * len(apart), (left["base"] - left["rich"]) / np.where(total > 0, total, 1), 0.0)
    result[i, j] = result[j, i] = np.clip(gain, 0.0, 1.0)
    return result


def _left_over(x: np.ndarray, y: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Squared error on the second half of the least-squares fit on the first."""
    fit = np.linalg.lstsq(x[half], y[half], rcond=1e-8)[0]
    return ((y[~half] - x[~half] @ fit) ** 2).sum(0)
