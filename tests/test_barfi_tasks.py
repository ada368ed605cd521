"""Auxiliary rewards of BARFI's study on mountain_car and cartpole, against plain loops over recorded steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reward_design import Kind
from reward_design.core import Transition
from reward_design.envs import task
from reward_design.envs.cartpole import controller, lagged_controller

LANES = 8


def recorded(env, act, steps, key=0, lanes=LANES):
    """``[T, B]`` transitions with resets; ``act(obs, angle before, key)``, where the first angle before is 0."""

    def lane(key):
        def body(carry, key):
            obs, state, angle = carry
            action = act(obs, angle, key)
            next_obs, state, reward, terminated, truncated, info = env.step(key, state, action)
            done = terminated | truncated
            row = Transition(obs, action, next_obs, reward, terminated, truncated, jnp.bool_(True), info)
            again = (*env.reset(key), jnp.zeros(()))
            return jax.tree.map(lambda a, b: jnp.where(done, a, b), again, (next_obs, state, obs[-2])), row

        start, rest = jax.random.split(key)
        return jax.lax.scan(body, (*env.reset(start), jnp.zeros(())), jax.random.split(rest, steps))[1]

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(lane, out_axes=1))(jax.random.split(jax.random.key(key), lanes)))


def paid(problem, name, rows):
    reward = problem.auxiliary[name]
    params, state = reward.init(jax.random.key(0), jax.tree.map(lambda x: x[0], rows))
    return np.asarray(jax.jit(reward.unroll)(params, state, rows)[0].reward)


def per_step(rows: Any, pay: Any) -> np.ndarray:
    """``pay(previous obs or None, obs, action, next obs)`` of every step; 0 where the episode terminates."""
    out = np.zeros_like(rows.reward, np.float64)
    for lane in range(LANES):
        previous = None
        for t in range(len(out)):
            ended = rows.terminated[t, lane] or rows.truncated[t, lane]
            step = rows.obs[t, lane], rows.action[t, lane], rows.next_obs[t, lane]
            out[t, lane] = 0.0 if rows.terminated[t, lane] else pay(previous, *step)
            previous = None if ended else rows.obs[t, lane]
    return out


# --- mountain car -----------------------------------------------------------------------------------------------------

CAR = task("mountain_car", reward="sparse", horizon=2000)


def bang_bang(previous, obs, action, next_obs):
    velocity = next_obs[1]
    return 1.0 if (velocity < 0 and action == 0) or (velocity > 0 and action == 2) else -1.0


def pump_or_random(obs, angle, key):
    drawn = jax.random.randint(key, (), 0, 3)
    return jnp.where(jax.random.uniform(key) < 0.5, drawn, jnp.where(obs[1] >= 0, 2, 0))


def test_the_car_of_the_study():
    rows = recorded(CAR.env, pump_or_random, 1000)
    assert CAR.horizon == 2000
    np.testing.assert_array_equal(rows.reward, rows.terminated)
    assert rows.terminated.sum() >= LANES
    expected = per_step(rows, bang_bang)
    np.testing.assert_array_equal(paid(CAR, "bang_bang", rows), expected)
    np.testing.assert_allclose(
        paid(CAR, "velocity", rows), per_step(rows, lambda p, o, a, n: 10 * abs(n[1])), rtol=1e-6
    )
    for name in ("bang_bang", "velocity"):
        assert not paid(CAR, name, rows)[rows.terminated].any()
        alive = paid(CAR, name, rows._replace(terminated=np.zeros_like(rows.terminated)))
        assert (alive[rows.terminated] != 0).all()
    before = per_step(rows, lambda p, o, a, n: bang_bang(p, o, a, o))  # the velocity before the step instead
    assert (before != expected).sum() > 20


def test_the_size_of_bang_bang_is_a_parameter():
    rows = recorded(CAR.env, pump_or_random, 50)
    reward = CAR.auxiliary["bang_bang"]
    params, state = reward.init(jax.random.key(0), jax.tree.map(lambda x: x[0], rows))
    larger = reward.unroll(jax.tree.map(lambda x: 5 * x, params), state, rows)[0].reward
    np.testing.assert_array_equal(np.abs(larger), 5.0)


def test_the_car_runs_for_two_thousand_steps():
    rows = recorded(CAR.env, lambda obs, angle, key: jnp.int32(1), 2001, lanes=2)
    np.testing.assert_array_equal(np.flatnonzero(rows.truncated[:, 0]), [1999])
    assert not rows.terminated.any()
    np.testing.assert_array_equal(paid(CAR, "bang_bang", rows)[1999], -1.0)  # the time limit is no end


def test_next_to_one_at_the_goal_bang_bang_is_worth_more_without_arriving():
    def discounted(values):
        return (CAR.gamma ** np.arange(len(values))[:, None] * values).sum(0)

    def loiter(obs, angle, key):  # pumps, but brakes on the way to the flag as soon as the energy nearly suffices
        brake = (obs[1] > 0) & (CAR.potential(obs) > 0.95)
        return jnp.where(brake, 0, jnp.where(obs[1] >= 0, 2, 0))

    arriving = recorded(CAR.env, lambda obs, angle, key: jnp.where(obs[1] >= 0, 2, 0), 300)
    staying = recorded(CAR.env, loiter, 1500)
    first = np.cumsum(arriving.terminated, 0) - arriving.terminated == 0
    assert arriving.terminated.any(0).all()
    assert not staying.terminated.any()
    sums = {}
    for name in ("bang_bang", "velocity", "none"):
        goal = discounted((arriving.reward + paid(CAR, name, arriving)) * first)
        sums[name] = goal.mean(), discounted(staying.reward + paid(CAR, name, staying)).mean()
    assert sums["velocity"][1] > sums["velocity"][0] + 1
    assert sums["bang_bang"][1] > sums["bang_bang"][0] + 1
    assert 0 < sums["none"][0] < 1
    assert sums["none"][1] == 0


# --- the pole ---------------------------------------------------------------------------------------------------------

POLE = task("cartpole")
CONTROLLERS = {
    "aligned": lambda obs, angle: controller(obs),
    "aligned_lagged": lambda obs, angle: lagged_controller(obs, angle),
}


def sigmoid_rounded(previous, obs):
    """The study's controller, as a sigmoid that is rounded; the angle before the first is 0."""
    angle = float(obs[2])
    before = 0.0 if previous is None else float(previous[2])
    return round(1 / (1 + np.exp(-(0.1 * angle + 0.5 * (angle - before)))))


def current(previous, obs):
    return round(1 / (1 + np.exp(-(0.1 * float(obs[2]) + 0.5 * 0.02 * float(obs[3])))))


@pytest.fixture(scope="module")
def random_rows():
    return recorded(POLE.env, lambda obs, angle, key: jax.random.randint(key, (), 0, 2), 200)


@pytest.mark.parametrize(("suffix", "choose"), [("", current), ("_lagged", sigmoid_rounded)])
def test_agreement_with_the_controller(suffix, choose, random_rows):
    rows = random_rows
    assert rows.terminated.sum() > 4 * LANES
    for name, agree, differ in (("aligned", 5.0, -1.0), ("misaligned", -5.0, 1.0)):
        expected = per_step(rows, lambda p, o, a, n: agree if a == choose(p, o) else differ)  # noqa: B023
        np.testing.assert_array_equal(paid(POLE, name + suffix, rows), expected)
        assert not expected[rows.terminated].any()
    alive = rows._replace(terminated=np.zeros_like(rows.terminated), truncated=rows.terminated)
    assert (paid(POLE, "misaligned" + suffix, alive) != 0).all()
    assert not paid(POLE, "none", rows).any()


def test_where_the_two_controllers_differ(random_rows):
    """By Euler's rule the angle's change is the angular velocity of the step before; so they disagree now and then."""
    rows = random_rows
    ongoing = ~(rows.terminated | rows.truncated)[:-1]
    change = rows.obs[1:, :, 2] - rows.obs[:-1, :, 2]
    np.testing.assert_allclose(change[ongoing], 0.02 * rows.obs[:-1, :, 3][ongoing], atol=1e-6)
    assert np.abs(change - 0.02 * rows.obs[1:, :, 3])[ongoing].max() > 0.005
    disagree = (paid(POLE, "aligned", rows) != paid(POLE, "aligned_lagged", rows)).mean()
    assert 0.005 < disagree < 0.3


def test_the_lagged_reward_remembers_one_angle():
    assert POLE.auxiliary["aligned_lagged"].kind is Kind.CAUSAL
    assert POLE.auxiliary["aligned"].kind is Kind.POINTWISE


@pytest.mark.parametrize("name", CONTROLLERS)
def test_the_controller_alone_balances_for_all_of_500_steps(name):
    act = CONTROLLERS[name]
    rows = recorded(POLE.env, lambda obs, angle, key: act(obs, angle).astype(int), 500, lanes=100)
    assert not rows.terminated.any()
    np.testing.assert_array_equal(rows.truncated.sum(0), 1)
    np.testing.assert_array_equal(rows.reward.sum(0), 500)
    np.testing.assert_array_equal(paid(POLE, name, rows), 5.0)
    assert (paid(POLE, name.replace("aligned", "misaligned"), rows) == -5.0).all()


@pytest.mark.parametrize("name", CONTROLLERS)
def test_the_opposite_of_the_controller_falls_at_once(name):
    act = CONTROLLERS[name]
    rows = recorded(POLE.env, lambda obs, angle, key: 1 - act(obs, angle).astype(int), 20, lanes=100)
    assert rows.terminated.any(0).all()
    assert rows.terminated.sum() > 100
    standing = ~rows.terminated
    np.testing.assert_array_equal(paid(POLE, name, rows)[standing], -1.0)
