"""What the conditions of the study of BARFI do: to the best policy, to an agent, and on the simulators themselves."""

import math

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reward_design as rd
from reward_design.agents import ppo
from reward_design.envs import task
from reward_design.envs.cartpole import lagged_controller
from reward_design.experiments import budgets

# --- gridworld: what the best policy of each naive sum does ---------------------------------------------------------


def square_step(i, j, action):
    """One undisturbed action between places (0.125 + 0.045 i, 0.125 + 0.045 j): place, end, payments."""
    right, up = ((0, 1), (1, 0), (0, -1), (-1, 0))[action]
    pays = {"primary": -0.1, "aligned": 0.0, "aligned_x": 0.0, "misaligned": 0.0, "none": 0.0}
    for _ in range(4):
        if not (-2 <= i + right <= 19 and -2 <= j + up <= 19):
            break
        i, j = i + right, j + up
        x, y = 0.125 + 0.045 * i, 0.125 + 0.045 * j
        pays["aligned"] -= (x - 0.87) ** 2 + (y - 0.87) ** 2
        pays["aligned_x"] -= (x - 0.87) ** 2 + 0.0144
        pays["misaligned"] += 50.0 * (7 <= i <= 10 and 7 <= j <= 10)
        if 14 <= i <= 19 and 14 <= j <= 19:
            return (i, j), True, pays | {"primary": 99.9, "misaligned": 0.0}
    return (i, j), False, pays


@pytest.fixture(scope="module")
def square():
    """Successor, end and payments ``[place, action]`` of the 22 x 22 places that play from the start can reach."""
    after, ends = np.zeros((484, 4), int), np.zeros((484, 4), bool)
    pays = {name: np.zeros((484, 4)) for name in square_step(0, 0, 0)[2]}
    for place in range(484):
        for action in range(4):
            (i, j), ends[place, action], paid = square_step(place // 22 - 2, place % 22 - 2, action)
            after[place, action] = 22 * (i + 2) + j + 2
            for name, value in paid.items():
                pays[name][place, action] = value
    return after, ends, pays


def best(square, name, slip):
    """Primary return and length of the policy that is best for primary + ``name``, in expectation."""
    after, ends, pays = square
    value = {"sum": np.zeros(484), "primary": np.zeros(484), "steps": np.zeros(484)}
    reward = {"sum": pays["primary"] + pays[name], "primary": pays["primary"], "steps": np.ones((484, 4))}
    for _ in range(50):
        q = {key: r + np.where(ends, 0.0, value[key][after]) for key, r in reward.items()}
        q = {key: (1 - slip) * x + slip * x.mean(1, keepdims=True) for key, x in q.items()}
        choice = q["sum"].argmax(1)
        value = {key: x[np.arange(484), choice] for key, x in q.items()}
    return value["primary"][22 * 2 + 2], value["steps"][22 * 2 + 2]


@pytest.mark.parametrize("slip", [0.0, 0.1])
@pytest.mark.parametrize("name", ["none", "aligned", "aligned_x", "misaligned"])
def test_only_the_misaligned_sum_never_arrives(square, name, slip):
    primary, steps = best(square, name, slip)
    if name == "misaligned":
        assert primary < 5
        assert steps > 48
    else:
        assert primary == pytest.approx(99.2 if slip == 0 else 99.12, abs=0.02)
        assert steps == pytest.approx(8, abs=1e-9 if slip == 0 else 1.0)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arrives"), [("none", True), ("aligned", True), ("misaligned", False)])
def test_ppo_on_the_naive_sum_does_what_the_best_policy_does(name, arrives):
    known = task("gridworld")
    config = budgets.settings(ppo.AGENT, known)
    naive = rd.weighted_sum(primary=rd.environment_reward(), heuristic=known.auxiliary[name])
    result = ppo.train(config, known, naive, jax.random.key(0))
    final = float(result.metrics["true_return"][-1])
    assert (final > 98) if arrives else (final < 30)


# --- mountain car: the physics of the study, written out ------------------------------------------------------------


@pytest.mark.parametrize("policy", ["pump", "left"])
def test_the_car_of_the_study_moves_and_pays_as_written(policy):
    """Whole episodes in double precision on both sides."""
    known = task("mountain_car", reward="sparse", horizon=2000)
    act = lambda v: (2 if v >= 0 else 0) if policy == "pump" else 0  # noqa: E731
    with jax.enable_x64(True):
        _, state = known.functional().reset(jax.random.key(3))
        state = state._replace(inner=jnp.asarray(state.inner, jnp.float64))
        step = jax.jit(lambda state, action: known.functional().step(jax.random.key(0), state, action))
        x, v, names = float(state.inner[0]), 0.0, ("bang_bang", "velocity", "none")
        rows, expected = [], []
        for _ in range(300):
            action, obs = act(v), state.inner
            next_obs, state, reward, terminated, truncated, info = step(state, jnp.int32(action))
            rows.append(rd.Transition(obs, jnp.int32(action), next_obs, reward, terminated, truncated, True, info))
            v = min(max(v + 0.001 * (action - 1) - 0.0025 * math.cos(3 * x), -0.07), 0.07)
            x += v
            if x < -1.2:
                x, v = -1.2, 0.0
            np.testing.assert_allclose(np.asarray(next_obs), [x, v], atol=1e-9)
            agrees = (v < 0 and action == 0) or (v > 0 and action == 2)
            arrived = x >= 0.5
            expected.append((1.0, 0.0, 0.0, 0.0) if arrived else (0.0, 1.0 if agrees else -1.0, 10 * abs(v), 0.0))
            if arrived:
                break
        batch = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves])[:, None], *rows)
        rewards = {}
        for name in names:
            reward = known.auxiliary[name]
            params, start = reward.init(jax.random.key(0), jax.tree.map(lambda leaf: leaf[0], batch))
            rewards[name] = np.asarray(reward.unroll(params, start, batch)[0].reward)[:, 0]
    columns = np.array(expected).T
    np.testing.assert_array_equal(batch.reward[:, 0], columns[0])
    for name, column in zip(rewards, columns[1:], strict=True):
        np.testing.assert_allclose(rewards[name], column, atol=1e-6)
    assert columns[0].sum() == (policy == "pump")
    assert set(columns[1].tolist()) >= ({0.0, 1.0} if policy == "pump" else {1.0, -1.0})


# --- cart-pole: the controller of the study on gymnasium's own pole --------------------------------------------------


@pytest.mark.parametrize("opposite", [False, True])
def test_the_controller_of_the_study_on_gymnasiums_pole(opposite):
    env, totals = gymnasium.make("CartPole-v1"), []
    for seed in range(3):
        obs, _ = env.reset(seed=seed)
        previous, total, done = 0.0, 0.0, False
        while not done:
            action = int(lagged_controller(np.asarray(obs), previous)) ^ opposite
            previous = float(obs[2])
            obs, reward, terminated, truncated, _ = env.step(action)
            total, done = total + float(reward), terminated or truncated
        totals.append(total)
    assert totals == [500.0] * 3 if not opposite else max(totals) < 20
