"""Sampled distances: invariant at any number of samples, convergent to the exact ones, honest about what they miss."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reward_design as rd
from reward_design.distance import (
    dard_distance,
    distance_matrix,
    epic_distance,
    recorded_samples,
    sample_functional,
    sample_mujoco,
    sample_tabular,
    sampled_dard,
    sampled_distances,
    sampled_epic,
    sampled_starc,
    srrd_distance,
)
from reward_design.distance.scoring import memory
from reward_design.envs import task
from reward_design.envs.base import Tabular
from reward_design.envs.random_mdp import random_transition

S, A, GAMMA = 32, 4, 0.95
WEIGHTED = {"norm": "weighted_2", "metric": "weighted_2"}


def problem(seed=0):
    """A random MDP with rewards: itself, shaped, noisy, opposite, redistributed, nothing, shaping alone."""
    rng = np.random.default_rng(seed)
    transition = random_transition(rng, S, A)
    reward, noise = rng.normal(size=(2, S, A, S))
    phi = 5 * rng.normal(size=S)
    shaped = 2 * reward + GAMMA * phi - phi[:, None, None]
    redistributed = reward + 3 * (noise - (transition * noise).sum(-1, keepdims=True))
    noisy = reward + 0.6 * rng.normal(size=reward.shape)
    model = Tabular(transition, reward, np.full(S, 1 / S), GAMMA, np.zeros(S, bool), np.arange(S, dtype=np.int32))
    return model, [reward, shaped, noisy, -shaped, redistributed, 0 * reward, shaped - 2 * reward]


@pytest.mark.parametrize(("num_samples", "num_next"), [(1000, 1), (1000, 8), (3000, 4)])
@pytest.mark.parametrize("method", ["val", "minimal_weighted"])
def test_shaping_is_removed_at_any_number_of_samples(num_samples, num_next, method):
    model, rewards = problem()
    batch = sample_tabular(model, num_samples=num_samples, num_next=num_next)
    found = sampled_distances(rewards, batch, gamma=GAMMA, canonicalisation=method, num_resamples=20)
    assert found.distance[0, 1] < 1e-9
    assert found.high[0, 1] < 1e-5
    assert found.distance[0, 3] == pytest.approx(2, abs=1e-9)
    assert 0.3 < found.distance[0, 2] < 0.8
    assert found.distance[0, 5] == pytest.approx(1, abs=1e-9)
    assert found.distance[5, 6] == 0
    assert found.trivial[[0, 1, 2, 3, 5, 6]].tolist() == [False] * 4 + [True] * 2
    np.testing.assert_array_equal(found.distance, found.distance.T)


@pytest.mark.parametrize("method", ["val", "minimal_weighted"])
def test_converges_to_the_exact_distance(method):
    model, rewards = problem(1)
    exact = distance_matrix(rewards[:4], model.transition, gamma=GAMMA, canonicalisation=method, **WEIGHTED)
    errors = []
    for num_samples in (500, 20_000):
        batch = sample_tabular(model, num_samples=num_samples, num_next=4)
        found = sampled_distances(rewards[:4], batch, gamma=GAMMA, canonicalisation=method, num_resamples=100)
        errors.append(np.abs(found.distance - exact).max())
    assert errors[1] < 0.03
    assert errors[1] < errors[0]
    assert found.low[0, 2] - 0.02 <= exact[0, 2] <= found.high[0, 2] + 0.02
    assert found.high[0, 2] - found.low[0, 2] < 0.1


def coverage(num_next, reference, seeds=12):
    """How often the intervals of two pairs hold the exact distance of a canonicalisation, of 2 · seeds."""
    model, rewards = problem(2)
    trio = [rewards[0], rewards[2], np.random.default_rng(9).normal(size=rewards[0].shape)]
    exact = distance_matrix(trio, model.transition, gamma=GAMMA, canonicalisation=reference, **WEIGHTED)[0, 1:]
    covered = 0
    for seed in range(seeds):
        batch = sample_tabular(model, num_samples=2000, num_next=num_next, seed=seed)
        found = sampled_distances(trio, batch, gamma=GAMMA, num_resamples=100)
        covered += int(((found.low[0, 1:] <= exact) & (exact <= found.high[0, 1:])).sum())
    return covered


def test_intervals_cover():
    assert coverage(4, "val") >= 20


def test_one_successor_measures_the_canonicalisation_that_keeps_it():
    """The limit and the interval for K = 1 and stochastic dynamics are those of ``val_potential``, not of ``val``."""
    assert coverage(1, "val_potential") >= 20
    assert coverage(1, "val") < 16


def test_redistribution_needs_several_successors():
    model, rewards = problem(3)
    pair = rewards[0], rewards[4]
    one = sampled_starc(*pair, sample_tabular(model, num_samples=5000, num_next=1), gamma=GAMMA)
    many = sampled_starc(*pair, sample_tabular(model, num_samples=20_000, num_next=8), gamma=GAMMA)
    assert one.low > 0.8
    assert many.low == 0
    assert many.distance < 0.35


def test_a_pair_against_loops():
    """The estimator written as loops over samples and successors, on a few of them."""
    model, rewards = problem(4)
    batch = sample_tabular(model, num_samples=150, num_next=3, seed=5)
    known = np.unique(batch.obs)
    phi = lambda s: (known == s).astype(float)  # noqa: E731
    matrix, right = np.zeros((len(known), len(known))), np.zeros((len(known), 2))
    for i in range(150):
        s, a = batch.obs[i], batch.action[i]
        for k in range(3):
            t = batch.next_obs[i, k]
            matrix += np.outer(phi(s), phi(s) - GAMMA * phi(t)) / 3
            right += np.outer(phi(s), [rewards[0][s, a, t], rewards[2][s, a, t]]) / 3
    theta = np.linalg.solve(matrix, right)
    products = np.zeros((2, 2))
    for i in range(150):
        s, a = batch.obs[i], batch.action[i]
        c = []
        for t in batch.next_obs[i]:
            paid = np.array([rewards[0][s, a, t], rewards[2][s, a, t]])
            c.append(paid + GAMMA * phi(t) @ theta - phi(s) @ theta)
        for k in range(3):
            for j in range(3):
                if j != k:
                    products += np.outer(c[k], c[j]) / 6 / 150
    products = (products + products.T) / 2
    expected = np.sqrt(2 - 2 * products[0, 1] / np.sqrt(products[0, 0] * products[1, 1]))
    found = sampled_starc(rewards[0], rewards[2], batch, gamma=GAMMA, num_resamples=10)
    assert found.distance == pytest.approx(expected, abs=1e-9)


# --- environments and recorded data -----------------------------------------------------------------------------------


def line_potential(obs):
    return 3.0 * obs[..., 0]


@pytest.fixture(scope="module")
def hill():
    car = task("mountain_car")
    return car, sample_functional(car, num_samples=2000, num_next=1, num_lanes=16)


def speed(sign=1.0):
    return rd.pointwise("speed", lambda t: sign * jnp.abs(t.next_obs[..., 1]) * 100.0)


def shaped_by(potential, gamma):
    return rd.chain(speed(), rd.potential_shaping(potential, gamma=gamma))


def test_rewards_on_a_functional_environment(hill):
    car, batch = hill
    assert batch.obs.shape == (2000, 2)
    assert batch.next_obs.shape == (2000, 1, 2)
    # the successor of the recorded action, as the environment itself gives it
    step = jax.vmap(lambda state, action: car.functional().step(jax.random.key(0), state, action)[0])
    np.testing.assert_allclose(step(batch.states[0], batch.action), batch.next_obs[:, 0], atol=1e-6)
    gamma = car.gamma
    inside = sampled_starc(speed(), shaped_by(line_potential, gamma), batch, gamma=gamma)
    assert inside.distance < 1e-6
    assert inside.outside_span < 1e-6
    assert sampled_starc(speed(), speed(-1.0), batch, gamma=gamma).distance == pytest.approx(2, abs=1e-9)
    wrong_gamma = sampled_starc(speed(), shaped_by(line_potential, 0.5), batch, gamma=gamma)
    assert wrong_gamma.distance > 0.1


def test_shaping_outside_the_span_is_told(hill):
    car, batch = hill
    shaped = shaped_by(lambda obs: 20.0 * jnp.cos(4.0 * obs[..., 0]), car.gamma)
    poor = lambda obs: np.concatenate([np.ones((len(obs), 1)), obs], axis=1)  # noqa: E731
    blind = sampled_starc(speed(), shaped, batch, gamma=car.gamma, features=poor)
    assert blind.distance > 0.1
    assert blind.outside_span > 0.5
    told = sampled_starc(
        speed(), shaped, batch, gamma=car.gamma, features=poor, potentials=[lambda o: jnp.cos(4.0 * o[..., 0])]
    )
    assert told.distance < 1e-6
    honest = rd.pointwise("push", lambda t: 0.1 * (jnp.asarray(t.action, float) * jnp.sin(9.0 * t.obs[..., 0])))
    other = sampled_starc(speed(), honest, batch, gamma=car.gamma)
    assert other.distance > 0.5
    assert other.outside_span < 0.3


def test_deficient_features_and_empty_data(hill):
    car, batch = hill
    twice = lambda obs: np.concatenate([obs, 2 * obs[:, :1]], axis=1)  # noqa: E731
    with pytest.raises(
        ValueError, match=r"features must be linearly independent, got rank 2 of 3 .* the columns \[2\]"
    ):
        sampled_starc(speed(), speed(), batch, gamma=car.gamma, features=twice)
    flags = np.zeros((3, 2), bool)
    nothing = rd.Transition(
        np.zeros((3, 2, 2)), np.zeros((3, 2), int), np.zeros((3, 2, 2)), np.zeros((3, 2)), flags, flags, flags
    )
    with pytest.raises(ValueError, match=r"recorded transitions are empty \(mask of shape \(3, 2\)\)"):
        recorded_samples(nothing)
    bad = rd.pointwise("bad", lambda t: jnp.where(t.obs[..., 0] > -0.6, jnp.nan, 0.0))
    with pytest.raises(ValueError, match="'bad' must be finite on all samples, got nan at sample"):
        sampled_starc(speed(), bad, batch, gamma=car.gamma)
    with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\)"):
        sampled_starc(speed(), speed(), batch, gamma=1.0)
    with pytest.raises(ValueError, match="num_samples of at least 2"):
        sample_tabular(problem()[0], num_samples=0)


def rollout(lanes=8, time=200, seed=0):
    """Recorded episodes of a corridor under random actions, with resets."""
    model = task("chain").tabular()
    rng, num = np.random.default_rng(seed), len(model.terminal)
    obs, rows = rng.choice(num, lanes, p=model.initial), []
    for _ in range(time):
        action = rng.integers(model.transition.shape[1], size=lanes)
        after = np.array([rng.choice(num, p=model.transition[s, a]) for s, a in zip(obs, action, strict=True)])
        end = model.terminal[after]
        rows.append((obs, action, after, model.reward[obs, action, after], end))
        obs = np.where(end, rng.choice(num, lanes, p=model.initial), after)
    obs, action, after, paid, end = (np.stack(x) for x in zip(*rows, strict=True))
    integers = [x.astype(np.int32) for x in (obs, action, after)]
    return rd.Transition(*integers, paid.astype(np.float32), end, end & False, ~(end & False))


def every_third():
    """Pays 1 on every third step of an episode: a reward with memory."""

    def init(key, example):
        return (), rd.State(episode=jnp.zeros_like(example.reward))

    def step(params, state, t):
        count = state.episode + 1
        return jnp.where(count % 3 == 0, 1.0, 0.0), state._replace(episode=count % 3)

    return rd.from_step("every_third", init, step)


def test_recorded_transitions_and_memory():
    trajectory = rollout()
    chain = task("chain")
    batch = recorded_samples(trajectory)
    assert "one successor per pair" in batch.guarantees
    shaped = rd.chain(rd.environment_reward(), rd.potential_shaping(chain.potential, gamma=chain.gamma))
    assert sampled_starc(rd.environment_reward(), shaped, batch, gamma=chain.gamma).distance < 1e-6
    third = every_third()
    mixed = rd.weighted_sum(task=rd.environment_reward(), third=third)
    assert sampled_starc(rd.environment_reward(), mixed, batch, gamma=chain.gamma).distance > 0.1
    shaped_third = rd.chain(third, rd.potential_shaping(chain.potential, gamma=chain.gamma))
    assert sampled_starc(third, shaped_third, batch, gamma=chain.gamma).distance < 1e-6
    with pytest.raises(TypeError, match=r"'every_third' has kind CAUSAL: .* Give recorded_samples"):
        sampled_starc(third, third, sample_tabular(chain.tabular(), num_samples=50), gamma=0.9)
    whole = rd.from_trajectory("whole", lambda *_: ((), ()), lambda p, s, t: (t.reward, s))
    with pytest.raises(TypeError, match="'whole' has kind TRAJECTORY"):
        sampled_starc(whole, third, batch, gamma=0.9)


def test_memory_values_are_those_of_unroll():
    trajectory = rollout(lanes=3, time=30)
    third = every_third()
    params, state = third.init(jax.random.key(0), jax.tree.map(lambda x: x[0], trajectory))
    expected = third.unroll(params, state, trajectory)[0].reward
    values, before, after = memory(third, recorded_samples(trajectory))
    np.testing.assert_allclose(values[:, 0], np.asarray(expected).reshape(-1))
    assert (before.max(), after.max()) == (2, 2)
    np.testing.assert_array_equal(after[:, 0], (before[:, 0] + 1) % 3)


def test_mujoco_state_is_set_and_restored():
    pytest.importorskip("mujoco")
    pendulum = task("mujoco/InvertedPendulum")
    batch = sample_mujoco(pendulum, num_samples=800, seed=1)
    assert batch.num_next == 1
    assert len(np.unique(batch.group)) > 5
    upright = rd.pointwise("upright", lambda t: -(t.next_obs[..., 1] ** 2))
    push = rd.pointwise("push", lambda t: jnp.sum(t.action**2, -1))
    phi = lambda obs: 2.0 * obs[..., 0] + obs[..., 2]  # noqa: E731
    shaped = rd.chain(upright, rd.potential_shaping(phi, gamma=0.95))
    assert sampled_starc(upright, shaped, batch, gamma=0.95).distance < 1e-6
    assert sampled_starc(upright, push, batch, gamma=0.95).distance > 0.3
    cartpole = gymnasium.make("CartPole-v1")
    with pytest.raises(TypeError, match=r"needs an environment with set_state\(qpos, qvel\), got CartPoleEnv"):
        sample_mujoco(cartpole, num_samples=10)


def test_mujoco_samples_repeat_the_rollout():
    """A step from a restored state goes where the environment itself goes from there."""
    pytest.importorskip("mujoco")
    inner = task("mujoco/InvertedPendulum").make().unwrapped
    batch = sample_mujoco(task("mujoco/InvertedPendulum"), num_samples=20)
    for i in (0, 7, 19):
        inner.reset(seed=5)
        inner.set_state(batch.obs[i, :2], batch.obs[i, 2:])
        after, reward, *_ = inner.step(batch.action[i])
        np.testing.assert_allclose(after, batch.next_obs[i, 0], atol=1e-9)
        assert reward == batch.reward[i, 0]


# --- EPIC, DARD, SRRD -------------------------------------------------------------------------------------------------


def test_sampled_epic_and_dard():
    model, rewards = problem(5)
    batch = sample_tabular(model, num_samples=2000)
    for distance in (sampled_epic, sampled_dard):
        kwargs = {"gamma": GAMMA, "num_mean": 64}
        assert distance(rewards[0], rewards[0], batch, **kwargs) == 0
        assert distance(rewards[0], rewards[1], batch, **kwargs) < 1e-9
        assert distance(rewards[0], rewards[3], batch, **kwargs) == pytest.approx(1, abs=1e-9)
        assert distance(rewards[0], rewards[6], batch, **kwargs) == pytest.approx(0.5, abs=1e-9)
        assert 0.05 < distance(rewards[0], rewards[2], batch, **kwargs) < 0.6
        assert distance(rewards[0], rewards[4], batch, **kwargs) > 0.2
    found = sampled_dard(rewards[0], rewards[2], batch, gamma=GAMMA, num_mean=200)
    exact = dard_distance(rewards[0], rewards[2], model.transition, gamma=GAMMA, coverage=model.transition)
    assert found == pytest.approx(exact, abs=0.03)


def test_sampled_epic_converges():
    """With states, actions and successors independent and uniform, the samples are EPIC's own distribution."""
    rng = np.random.default_rng(6)
    uniform = np.full((6, 2, 6), 1 / 6)
    reward, other = rng.normal(size=(2, 6, 2, 6))
    model = Tabular(uniform, reward, np.full(6, 1 / 6), 0.9, np.zeros(6, bool), np.arange(6, dtype=np.int32))
    batch = sample_tabular(model, num_samples=8000)
    found = sampled_epic(reward, other, batch, gamma=0.9, num_mean=1000)
    assert found == pytest.approx(epic_distance(reward, other, gamma=0.9), abs=0.02)


def test_peers_evaluate_rewards_where_nothing_was_sampled(hill):
    car, batch = hill
    assert sampled_epic(speed(), shaped_by(line_potential, car.gamma), batch, gamma=car.gamma) < 1e-6
    assert sampled_dard(speed(), shaped_by(line_potential, car.gamma), batch, gamma=car.gamma) < 1e-6
    assert sampled_epic(speed(), speed(-1.0), batch, gamma=car.gamma) == pytest.approx(1)
    with pytest.raises(ValueError, match="a reward is nan on a transition that was not sampled"):
        sampled_epic(rd.environment_reward(), speed(), batch, gamma=car.gamma)
    with pytest.raises(TypeError, match="sampled_dard needs samples of a simulator"):
        sampled_dard(speed(), speed(), recorded_samples(rollout()), gamma=0.9)


def naive_srrd(reward, visits, gamma):
    """The eight terms, one after the other, by enumeration."""
    weight = visits / visits.sum()
    num = len(weight)
    actions, left, entered = weight.sum((0, 2)), weight.sum((1, 2)), weight.sum((0, 1))
    follow = np.array([w.sum(0) / w.sum() if w.sum() else entered for w in weight])
    mean = np.einsum("sat,a->st", reward, actions)
    c = np.zeros_like(reward)
    for s, a, t in np.ndindex(*reward.shape):
        total = reward[s, a, t]
        for x in range(num):
            total += gamma * follow[t, x] * mean[t, x] - follow[s, x] * mean[s, x]
            for y in range(num):
                total -= gamma * left[x] * entered[y] * mean[x, y]
                total += gamma**2 * follow[t, x] * follow[x, y] * mean[x, y]
                total -= gamma * follow[s, x] * follow[x, y] * mean[x, y]
                for z in range(num):
                    total += gamma * left[z] * follow[s, x] * follow[x, y] * mean[z, y]
                    total -= gamma**2 * entered[z] * follow[t, x] * follow[x, y] * mean[z, y]
        c[s, a, t] = total
    return c


def test_srrd():
    rng = np.random.default_rng(7)
    reward, other = rng.normal(size=(2, 5, 2, 5))
    visits = rng.integers(1, 4, size=(5, 2, 5)) * (rng.random((5, 2, 5)) < 0.2)
    visits[3] = 0
    x, y = (naive_srrd(r, visits, 0.9)[visits > 0] for r in (reward, other))
    w = visits[visits > 0] / visits.sum()
    x, y = x - w @ x, y - w @ y
    rho = (w * x * y).sum() / np.sqrt((w * x * x).sum() * (w * y * y).sum())
    assert srrd_distance(reward, other, visits, gamma=0.9) == pytest.approx(np.sqrt((1 - rho) / 2), abs=1e-12)
    phi = 5 * rng.normal(size=5)
    shaped = 3 * (reward + 0.9 * phi - phi[:, None, None])
    assert srrd_distance(reward, shaped, visits, gamma=0.9) < 1e-9
    assert srrd_distance(reward, -shaped, visits, gamma=0.9) == pytest.approx(1)
    assert srrd_distance(reward, shaped, visits, gamma=0.5) > 0.05
    assert srrd_distance(reward, shaped - 3 * reward, visits, gamma=0.9) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="visits must count observed transitions, at least one"):
        srrd_distance(reward, other, 0 * visits, gamma=0.9)
