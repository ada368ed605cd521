"""The grid world of BARFI's study, against a loop written from its description."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reward_design as rd
from reward_design.adapters.gymnasium import RewardWrapper, VectorRewardWrapper
from reward_design.core import Transition
from reward_design.envs import rendering, task
from reward_design.envs.gridworld import GridWorld, gridworld, inside, potential

CALM, TASK = gridworld(slip=0.0), gridworld()
MOVES = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)], float)
UP, RIGHT, DOWN, LEFT = range(4)


# --- the oracle -------------------------------------------------------------------------------------------------------


def naive_step(position, action):
    """One undisturbed action: position, whether the goal was entered, and what each reward pays."""
    position = np.array(position, float)
    pays = {"primary": -0.1, "aligned": 0.0, "aligned_x": 0.0, "misaligned": 0.0, "none": 0.0}
    for _ in range(4):
        new = position + 0.045 * MOVES[action]
        if new[0] < 0 or new[0] > 1 or new[1] < 0 or new[1] > 1:
            return position, False, pays
        position = new
        x, y = position
        pays["aligned"] -= (x - 0.87) ** 2 + (y - 0.87) ** 2
        pays["aligned_x"] -= (x - 0.87) ** 2 + 0.0144
        if 0.4 <= x <= 0.6 and 0.4 <= y <= 0.6:
            pays["misaligned"] += 50.0
        if 0.75 <= x <= 0.99 and 0.75 <= y <= 0.99:
            pays["primary"] += 100.0
            pays["misaligned"] = 0.0
            return position, True, pays
    return position, False, pays


def naive_lattice():
    """The oracle from every place of the lattice that a start at 0.125 can reach: next index, ends, rewards [S, A]."""
    places = [(0.125 + 0.045 * i, 0.125 + 0.045 * j) for i in range(-2, 20) for j in range(-2, 20)]
    names = naive_step(places[0], 0)[2]
    after, ends = np.zeros((len(places), 4), int), np.zeros((len(places), 4), bool)
    rewards = {name: np.zeros((len(places), 4)) for name in names}
    for s, place in enumerate(places):
        for a in range(4):
            position, ends[s, a], pays = naive_step(place, a)
            i, j = np.rint((position - 0.125) / 0.045).astype(int) + 2
            after[s, a] = 22 * i + j
            for name, value in pays.items():
                rewards[name][s, a] = value
    return after, ends, rewards


AFTER, ENDS, PAYS = naive_lattice()
START = 22 * 2 + 2


def best(reward, slip, horizon=50):
    """Largest expected return of an episode, and the actions that collect it undisturbed."""
    value, choices = np.zeros(len(AFTER)), []
    for _ in range(horizon):
        q = reward + np.where(ENDS, 0.0, value[AFTER])
        q = (1 - slip) * q + slip * q.mean(1, keepdims=True)
        value = q.max(1)
        choices.append(q.argmax(1))
    state, actions = START, []
    for choice in reversed(choices):
        actions.append(int(choice[state]))
        if ENDS[state, actions[-1]]:
            break
        state = AFTER[state, actions[-1]]
    return value[START], actions


# --- ours -------------------------------------------------------------------------------------------------------------


def rollout(env, actions, key=0):
    """Transitions ``[T, 1]`` of consecutive episodes under fixed actions."""

    def body(carry, row):
        (obs, state), (key, action) = carry, row
        next_obs, new, reward, terminated, truncated, info = env.step(key, state, action)
        fresh, done = env.reset(key), terminated | truncated
        row = Transition(obs, action, next_obs, reward, terminated, truncated, jnp.bool_(True), info)
        return jax.tree.map(lambda a, b: jnp.where(done, a, b), fresh, (next_obs, new)), row

    keys = jax.random.split(jax.random.key(key), len(actions))
    rows = jax.jit(lambda *x: jax.lax.scan(body, env.reset(jax.random.key(0)), x)[1])(keys, jnp.asarray(actions))
    return jax.tree.map(lambda x: x[:, None], rows)


def paid(known, name, rows):
    reward = known.true_reward if name == "primary" else known.auxiliary[name]
    params, state = reward.init(jax.random.key(0), known.example)
    return np.asarray(reward.unroll(params, state, rows)[0].reward)[:, 0]


def test_a_thousand_steps_equal_the_naive_loop():
    """Actions drift to the upper right and back, so that walls, the middle box and the goal are all met."""
    rng = np.random.default_rng(0)
    drift = np.arange(1000) // 60 % 3 > 0
    actions = np.where(drift & (rng.random(1000) < 0.6), rng.integers(0, 2, 1000), rng.integers(0, 4, 1000))
    rows = rollout(CALM.env, actions)
    position, time, seen = np.array([0.125, 0.125]), 0, []
    for i, action in enumerate(actions):
        np.testing.assert_allclose(rows.obs[i, 0], position, atol=1e-5)
        before = position
        position, ended, pays = naive_step(position, action)
        time += 1
        np.testing.assert_allclose(rows.next_obs[i, 0], position, atol=1e-5)
        assert (rows.terminated[i, 0], rows.truncated[i, 0]) == (ended, time == 50 and not ended)
        seen.append((pays, ended, np.abs(position - before).sum() < 0.17 and not ended))
        if ended or time == 50:
            position, time = np.array([0.125, 0.125]), 0
    for name in ("primary", "aligned", "aligned_x", "misaligned", "none"):
        np.testing.assert_allclose(paid(CALM, name, rows), [pays[name] for pays, *_ in seen], atol=1e-4)
    np.testing.assert_array_equal(CALM.success(rows)[:, 0], [ended for _, ended, _ in seen])
    assert sum(ended for _, ended, _ in seen) >= 10
    assert sum(blocked for *_, blocked in seen) >= 50
    assert sum(pays["misaligned"] > 0 for pays, *_ in seen) >= 10
    assert rows.truncated.sum() >= 3


def test_the_two_aligned_rewards_are_far_apart_where_y_matters():
    rows = rollout(CALM.env, [UP, RIGHT])
    both, x_only = paid(CALM, "aligned", rows), paid(CALM, "aligned_x", rows)
    assert (np.abs(both - x_only) > 0.5).all()
    assert both[0] == pytest.approx(-4 * 0.745**2 - sum((0.745 - 0.045 * k) ** 2 for k in (1, 2, 3, 4)), abs=1e-5)
    assert x_only[0] == pytest.approx(-4 * (0.745**2 + 0.0144), abs=1e-5)


def test_disturbed_steps_are_those_of_another_action_as_often_as_said():
    """Each step is the oracle's for one of the actions; a random one is the chosen one a quarter of the time."""
    num, slip = 4000, 0.4
    for known, rate in ((gridworld(slip=slip), slip), (TASK, 0.1), (CALM, 0.0)):
        keys, actions = jax.random.split(jax.random.key(1), num), np.arange(num) % 4
        state = known.env.reset(keys[0])[1]._replace(inner=jnp.array([0.5, 0.5]))
        obs = jax.jit(jax.vmap(lambda key, a, s=state, e=known.env: e.step(key, s, a)[0]))(keys, actions)
        ends = np.stack([naive_step((0.5, 0.5), a)[0] for a in range(4)])
        gap = np.abs(np.asarray(obs)[:, None] - ends).max(-1)
        assert (gap.min(1) < 1e-5).all()
        went = gap.argmin(1)
        expected = 0.75 * rate
        assert abs((went != actions).mean() - expected) <= 4 * np.sqrt(expected * (1 - expected) / num)
        if rate:
            counts = np.bincount((went - actions)[went != actions] % 4, minlength=4)[1:]
            assert (np.abs(counts - counts.mean()) < 5 * np.sqrt(counts.mean())).all()


# --- the figures ------------------------------------------------------------------------------------------------------


def test_the_shortest_way_has_eight_steps():
    value, actions = best(PAYS["primary"], 0.0)
    assert len(actions) == 8
    assert value == pytest.approx(99.2)
    rows = rollout(CALM.env, actions)
    np.testing.assert_array_equal(rows.terminated[:, 0], [False] * 7 + [True])
    assert paid(CALM, "primary", rows).sum() == pytest.approx(99.2, abs=1e-4)
    assert best(PAYS["primary"], 0.1)[0] == pytest.approx(99.12, abs=0.01)


def test_loitering_outweighs_the_goal_and_the_aligned_reward_does_not():
    value, actions = best(PAYS["misaligned"], 0.0)
    assert value == 7900
    rows = rollout(CALM.env, actions)
    assert paid(CALM, "misaligned", rows).sum() == pytest.approx(7900)
    assert not rows.terminated.any()
    assert rows.truncated[-1, 0]
    assert 6800 < best(PAYS["misaligned"], 0.1)[0] < 7000
    for name, arrives in (("misaligned", False), ("aligned", True), ("aligned_x", True), ("none", True)):
        _, actions = best(PAYS["primary"] + PAYS[name], 0.0)
        assert (len(actions) < 50) == arrives, name


def test_leaning_on_a_wall_is_free_of_the_aligned_reward():
    rows = rollout(CALM.env, [LEFT] * 5)
    both = paid(CALM, "aligned", rows)
    assert both[0] < -1
    np.testing.assert_array_equal(both[1:], 0)
    np.testing.assert_allclose(rows.next_obs[1:, 0], np.tile([0.035, 0.125], (4, 1)), atol=1e-6)
    assert not rows.info["moved"][1:].any()


def test_the_potential_counts_the_way_left():
    assert float(potential(jnp.array([0.0, 0.0]))) == 0
    assert float(potential(jnp.array([0.8, 0.98]))) == 1
    assert float(potential(jnp.array([0.25, 0.8]))) == pytest.approx(1 - 0.5 / 1.5)
    assert float(potential(jnp.array([1.0, 0.8]))) == pytest.approx(1 - 0.01 / 1.5, abs=1e-6)


# --- settings, pictures, wrappers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"slip": 1.5}, r"gridworld: slip must be in \[0, 1\], got 1.5."),
        ({"horizon": 0}, "gridworld: horizon must be a positive integer, got 0."),
        ({"gamma": -1.0}, r"gridworld: gamma must be in \[0, 1\], got -1.0."),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        task("gridworld", **settings)


def test_the_picture_has_the_point_the_goal_and_the_middle_box():
    env = CALM.env
    assert isinstance(env, GridWorld)
    _, state = env.reset(jax.random.key(0))
    picture = env.render(state, np.array([0.3, 0.6], np.float32))

    def at(x, y):
        return "#" + bytes(picture[round(360 * (1.02 - y) / 1.04), round(360 * (x + 0.02) / 1.04)].tolist()).hex()

    assert at(0.3, 0.6) == rendering.BLUE
    assert at(0.6, 0.3) == rendering.PAPER
    assert (at(0.87, 0.87), at(0.5, 0.5), at(0.125, 0.125)) == (rendering.GREEN, rendering.GOLD, rendering.LIGHT)
    assert at(0.5, 1.015) == rendering.INK


@pytest.mark.parametrize("name", ["aligned", "misaligned"])
def test_a_gymnasium_wrapper_pays_the_same(name):
    """The sub-steps reach the reward through ``info``."""
    _, actions = best(PAYS["misaligned"], 0.0)
    expected = paid(CALM, name, rollout(CALM.env, actions))
    env = RewardWrapper(CALM.make(), CALM.auxiliary[name], info_keys=["substeps", "moved"])
    env.reset(seed=0)
    got = [env.step(action)[1] for action in actions]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    envs = VectorRewardWrapper(CALM.vector(2, seed=0), CALM.auxiliary[name], info_keys=["substeps", "moved"])
    envs.reset()
    got = [envs.step(np.array([action, UP]))[1][0] for action in actions]  # the last one resets both lanes
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(expected).sum() > 10


def test_masked_rows_pay_nothing():
    rows = rollout(CALM.env, [RIGHT, UP, UP, RIGHT])
    hidden = rows._replace(mask=jnp.array([[True], [False], [True], [False]]))
    for name in ("aligned", "aligned_x"):
        values = paid(CALM, name, hidden)
        assert (values[[1, 3]] == 0).all()
        np.testing.assert_allclose(values[[0, 2]], paid(CALM, name, rows)[[0, 2]])


def test_borders_belong_to_a_box():
    assert inside(jnp.array([[0.75, 0.75], [0.5, 0.8]]), (0.75, 0.99)).tolist() == [True, False]


def test_the_blend_of_barfi_takes_every_condition():
    from reward_design.bilevel import alignment_reward

    rows = rollout(CALM.env, [RIGHT, UP])
    for name in ("aligned", "misaligned", "none"):
        blend = alignment_reward(rd.environment_reward(), CALM.auxiliary[name])
        params, state = blend.init(jax.random.key(0), CALM.example)
        output = blend.unroll(params, state, rows)[0]
        np.testing.assert_allclose(output.reward[:, 0], paid(CALM, name, rows) + paid(CALM, "primary", rows), atol=1e-5)
