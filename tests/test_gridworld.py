"""GridWorld of BARFI's study against a plain loop, and the figures known of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import reward_design as rd
from reward_design.adapters.gymnasium import RewardWrapper, VectorRewardWrapper
from reward_design.bilevel import alignment_reward
from reward_design.core import Transition
from reward_design.envs import control_pictures, rendering, task
from reward_design.envs.gridworld import GridWorld, gridworld, inside

UP, RIGHT, DOWN, LEFT = range(4)
STEPS = 1000
CALM = gridworld(slip=0.0)
AUXILIARY = ("aligned", "aligned_x", "misaligned", "none")
TOUCH = {"stop": lambda x, new: x, "clip": lambda x, new: min(max(new, 0.0), 1.0)}


# --- the plain loop, in double precision ------------------------------------------------------------------------------


def move(x, y, action, touch="stop"):
    """One undisturbed step: where it ends, reward, whether it arrived, auxiliary rewards, sub-steps taken."""
    paid = dict.fromkeys(AUXILIARY, 0.0)
    dx, dy = ((0, 0.045), (0.045, 0), (0, -0.045), (-0.045, 0))[action]
    reward, arrived, taken = -0.1, False, 0
    for _ in range(4):
        new_x, new_y = x + dx, y + dy
        if not (0 <= new_x <= 1 and 0 <= new_y <= 1):
            x, y = TOUCH[touch](x, new_x), TOUCH[touch](y, new_y)
            break
        x, y, taken = new_x, new_y, taken + 1
        paid["aligned"] -= (x - 0.87) ** 2 + (y - 0.87) ** 2
        paid["aligned_x"] -= (x - 0.87) ** 2 + 0.0144
        if 0.4 <= x <= 0.6 and 0.4 <= y <= 0.6:
            paid["misaligned"] += 50
        if 0.75 <= x <= 0.99 and 0.75 <= y <= 0.99:
            arrived = True
            reward += 100
            paid["misaligned"] = 0.0
            break
    return x, y, reward, arrived, paid, taken


def looped(actions, touch="stop"):
    """Columns of a whole run with resets, as the loop computes them."""
    rows, x, y, time = [], 0.125, 0.125, 0
    for action in actions:
        x, y, reward, arrived, paid, taken = move(x, y, action, touch)
        time += 1
        late = time == 50 and not arrived
        rows.append((x, y, reward, arrived, late, taken, *paid.values()))
        if arrived or late:
            x, y, time = 0.125, 0.125, 0
    return np.array(rows, np.float64)


@functools.cache
def compiled(env):
    def body(carry, row):
        (obs, state), (action, key) = carry, row
        next_obs, state, reward, terminated, truncated, info = env.step(key, state, action)
        fresh = env.reset(key)
        carry = jax.tree.map(lambda a, b: jnp.where(terminated | truncated, a, b), fresh, (next_obs, state))
        return carry, Transition(obs, action, next_obs, reward, terminated, truncated, jnp.bool_(True), info)

    start = env.reset(jax.random.key(0))
    return jax.jit(lambda *rows: jax.lax.scan(body, start, rows)[1])


def run(env, actions, seed=0):
    """Transitions ``[T, 1]`` of the environment under ``actions``, with resets; one compilation for all lengths."""
    padded = np.zeros(STEPS, np.int32)
    padded[: len(actions)] = actions
    rows = compiled(env)(padded, jax.random.split(jax.random.key(seed), STEPS))
    return jax.tree.map(lambda x: np.asarray(x)[: len(actions), None], rows)


def paid(problem, name, rows):
    reward = problem.auxiliary[name]
    params, state = reward.init(jax.random.key(0), problem.example)
    return np.asarray(reward.unroll(params, state, rows)[0].reward)[:, 0]


def columns(problem, rows):
    """What :func:`looped` gives, from recorded transitions."""
    ends = rows.next_obs[:, 0], rows.reward, rows.terminated, rows.truncated, rows.info["moved"][:, 0].sum(-1)
    return np.column_stack([*ends, *(paid(problem, name, rows) for name in AUXILIARY)]).astype(np.float64)


def wandering():
    """Random actions with a drift that changes, so that walls, corners, the middle and the goal are all met."""
    rng = np.random.default_rng(0)
    drift = np.array([[0.25] * 4, [0.4, 0.4, 0.1, 0.1], [0.1, 0.1, 0.4, 0.4], [0.35, 0.35, 0.15, 0.15]])
    return np.concatenate([rng.choice(4, size=STEPS // 4, p=row) for row in drift])


def test_a_thousand_steps_equal_the_loop():
    actions = wandering()
    rows, expected = run(CALM.env, actions), looped(actions)
    np.testing.assert_allclose(columns(CALM, rows), expected, atol=2e-4, rtol=1e-5)
    assert rows.terminated.sum() >= 5
    assert rows.truncated.sum() >= 5
    assert (expected[:, 5] < 4).sum() >= 50
    assert (expected[:, 8] > 0).sum() >= 20
    assert not paid(CALM, "none", rows).any()


@pytest.mark.parametrize("other", ["walls", "action"])
def test_the_comparison_notices_a_difference(other):
    actions = wandering()
    changed = np.where(np.arange(STEPS) == 3, (actions + 2) % 4, actions) if other == "action" else actions
    expected = looped(changed, "clip" if other == "walls" else "stop")
    assert np.abs(columns(CALM, run(CALM.env, actions)) - expected).max() > 1


def test_the_rewards_of_the_paper_and_of_the_code_are_far_apart():
    rows = run(CALM.env, wandering())
    assert np.abs(paid(CALM, "aligned", rows) - paid(CALM, "aligned_x", rows)).max() > 1
    up_and_down = run(CALM.env, [UP, UP, DOWN])
    assert np.ptp(paid(CALM, "aligned_x", up_and_down)) < 1e-6
    assert np.ptp(paid(CALM, "aligned", up_and_down)) > 0.1


# --- disturbances -----------------------------------------------------------------------------------------------------


def test_a_disturbed_step_is_that_of_another_action():
    problem, actions = gridworld(), wandering()
    rows = run(problem.env, actions, seed=1)
    got, others = columns(problem, rows), 0
    for obs, action, row, late in zip(rows.obs[:, 0], actions, got, rows.truncated[:, 0], strict=True):
        possible = [move(*obs.astype(np.float64), choice) for choice in range(4)]
        wanted = np.array([[x, y, r, a, late, n, *each.values()] for x, y, r, a, each, n in possible])
        fits = np.abs(wanted - row).max(1) < 1e-3
        assert fits.any()
        others += not fits[action]
    assert 40 < others < 110


@pytest.mark.parametrize(("slip", "expected"), [(0.1, [0.025, 0.925, 0.025, 0.025]), (1.0, [0.25] * 4)])
def test_frequencies_of_the_action_taken(slip, expected):
    env = GridWorld(slip=slip)
    _, state = env.reset(jax.random.key(0))
    state = state._replace(inner=jnp.array([0.5, 0.5]))
    ends = jax.jit(jax.vmap(lambda key: env.step(key, state, jnp.int32(RIGHT))[0]))(
        jax.random.split(jax.random.key(2), 20_000)
    )
    goals = 0.5 + 0.18 * np.array([[0, 1], [1, 0], [0, -1], [-1, 0]])
    distances = np.abs(np.asarray(ends)[:, None] - goals).max(-1)
    assert distances.min(1).max() < 1e-5
    counts = np.bincount(distances.argmin(1), minlength=4)
    assert stats.chisquare(counts, 20_000 * np.array(expected)).pvalue > 1e-3
    assert stats.chisquare(counts, 20_000 * np.array([0.04, 0.88, 0.04, 0.04])).pvalue < 1e-6


# --- known figures ----------------------------------------------------------------------------------------------------


@functools.cache
def lattice():
    """The loop from every place 0.125 + 0.045 k: index of the next place, arrivals and payments ``[place, action]``."""
    places = [(0.125 + 0.045 * i, 0.125 + 0.045 * j) for i in range(-2, 20) for j in range(-2, 20)]
    after, ends = np.zeros((len(places), 4), int), np.zeros((len(places), 4), bool)
    pays = {name: np.zeros((len(places), 4)) for name in ("primary", *AUXILIARY)}
    for place, at in enumerate(places):
        for action in range(4):
            x, y, reward, ends[place, action], extra, _ = move(*at, action)
            i, j = (round((value - 0.125) / 0.045) + 2 for value in (x, y))
            after[place, action] = 22 * i + j
            for name, value in {"primary": reward, **extra}.items():
                pays[name][place, action] = value
    return after, ends, pays


def best(*names, slip=0.0):
    """Largest expected sum of rewards in 50 steps (dynamic programming), and the actions that earn it undisturbed."""
    after, ends, pays = lattice()
    reward = sum(pays[name] for name in names)
    value, choices = np.zeros(len(after)), []
    for _ in range(50):
        worth = reward + np.where(ends, 0.0, value[after])
        worth = (1 - slip) * worth + slip * worth.mean(1, keepdims=True)
        value = worth.max(1)
        choices.append(worth.argmax(1))
    place, actions = 22 * 2 + 2, []
    start = value[place]
    for choice in reversed(choices):
        actions.append(int(choice[place]))
        if ends[place, actions[-1]]:
            break
        place = after[place, actions[-1]]
    return start, actions


def test_the_shortest_way_has_eight_steps():
    value, actions = best("primary")
    assert len(actions) == 8
    assert value == pytest.approx(99.2)
    assert best("primary", slip=0.1)[0] == pytest.approx(99.12, abs=0.01)
    played = run(CALM.env, actions)
    assert played.terminated[:, 0].tolist() == [False] * 7 + [True]
    rows = run(CALM.env, [RIGHT] * 4 + [UP] * 4)
    np.testing.assert_array_equal(rows.terminated[:, 0], [False] * 7 + [True])
    assert rows.reward.sum() == pytest.approx(99.2, abs=1e-4)
    assert rows.info["moved"][-1].sum() == 2
    assert np.abs(rows.next_obs[-1, 0] - [0.845, 0.755]).max() < 1e-5


def test_loitering_is_worth_far_more_than_the_goal():
    most, actions = best("misaligned")
    rows = run(CALM.env, actions)
    assert most == 7900
    assert 6800 < best("misaligned", slip=0.1)[0] < 7000
    assert paid(CALM, "misaligned", rows).sum() == pytest.approx(most)
    assert rows.reward.sum() == pytest.approx(-5.0, abs=1e-4)
    assert rows.truncated[-1]
    assert not rows.terminated.any()
    assert paid(CALM, "misaligned", rows)[-1] > 0  # the time limit is no end
    way = run(CALM.env, [RIGHT, RIGHT, UP, UP, RIGHT, RIGHT, UP, UP])
    assert 0 < paid(CALM, "misaligned", way).sum() < 500
    assert way.terminated[-1]


def test_no_misaligned_reward_on_the_step_that_arrives():
    """No real step enters the goal from the box; one is made up."""
    rows = run(CALM.env, [RIGHT, RIGHT, UP, UP])
    assert paid(CALM, "misaligned", rows)[-1] == 100
    ended = rows._replace(terminated=np.ones_like(rows.terminated))
    assert not paid(CALM, "misaligned", ended).any()
    for name in ("aligned", "aligned_x"):
        np.testing.assert_array_equal(paid(CALM, name, ended), paid(CALM, name, rows))


def test_aligned_prefers_the_shortest_way():
    way = run(CALM.env, [RIGHT] * 4 + [UP] * 4)
    loiter = run(CALM.env, best("misaligned")[1])
    for name in ("aligned", "aligned_x"):
        worth = [(rows.reward[:, 0] + paid(CALM, name, rows)).sum() for rows in (way, loiter)]
        assert worth[0] > 60
        assert worth[1] < -10


@pytest.mark.parametrize(
    ("name", "arrives"), [("aligned", True), ("aligned_x", True), ("none", True), ("misaligned", False)]
)
def test_what_is_best_for_the_sum_with_the_primary_reward(name, arrives):
    assert (len(best("primary", name)[1]) < 50) == arrives


def test_leaning_on_a_wall_is_free_of_the_aligned_reward():
    rows = run(CALM.env, [LEFT] * 5)
    values = paid(CALM, "aligned", rows)
    assert values[0] < -1
    assert not values[1:].any()
    assert not rows.info["moved"][1:].any()
    np.testing.assert_allclose(rows.next_obs[1:, 0], np.tile([0.035, 0.125], (4, 1)), atol=1e-6)


# --- through wrappers, masks and a blend ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["aligned", "misaligned"])
def test_gymnasium_wrappers_pay_the_same(name):
    """The sub-steps reach the reward through ``info``."""
    actions = best("misaligned")[1]
    expected = paid(CALM, name, run(CALM.env, actions))
    env = RewardWrapper(CALM.make(), CALM.auxiliary[name], info_keys=["substeps", "moved"])
    env.reset(seed=0)
    np.testing.assert_allclose([env.step(a)[1] for a in actions], expected, rtol=1e-5, atol=1e-5)
    envs = VectorRewardWrapper(CALM.vector(2, seed=0), CALM.auxiliary[name], info_keys=["substeps", "moved"])
    envs.reset()
    got = [envs.step(np.array([a, UP]))[1][0] for a in actions]  # the last step resets both lanes
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(expected).sum() > 10


def test_masked_rows_pay_nothing():
    rows = run(CALM.env, [RIGHT, UP, UP, RIGHT])
    hidden = rows._replace(mask=np.array([[True], [False], [True], [False]]))
    for name in ("aligned", "aligned_x"):
        values = paid(CALM, name, hidden)
        assert not values[[1, 3]].any()
        np.testing.assert_allclose(values[[0, 2]], paid(CALM, name, rows)[[0, 2]])
        assert paid(CALM, name, rows)[[1, 3]].all()


@pytest.mark.parametrize("name", AUXILIARY)
def test_the_blend_of_barfi_takes_every_condition(name):
    rows = run(CALM.env, [RIGHT, RIGHT, UP, UP])
    blend = alignment_reward(rd.environment_reward(), CALM.auxiliary[name])
    params, state = blend.init(jax.random.key(0), CALM.example)
    output = blend.unroll(params, state, rows)[0]
    np.testing.assert_allclose(output.reward[:, 0], rows.reward[:, 0] + paid(CALM, name, rows), atol=1e-5)


# --- settings, picture ------------------------------------------------------------------------------------------------


def test_goal_border_start_and_potential():
    assert CALM.potential(jnp.array([0.125, 0.125])) == pytest.approx(1 - 1.25 / 1.5)
    assert CALM.potential(jnp.array([0.99, 0.75])) == 1.0
    assert CALM.potential(jnp.array([1.0, 0.8])) == pytest.approx(1 - 0.01 / 1.5, abs=1e-6)
    assert CALM.env.horizon == 50
    starts, _ = jax.vmap(CALM.env.reset)(jax.random.split(jax.random.key(0), 3))
    np.testing.assert_allclose(starts, np.full((3, 2), 0.125))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"slip": 1.5}, r"gridworld: slip must be in \[0, 1\], got 1.5"),
        ({"slip": float("nan")}, r"gridworld: slip must be in \[0, 1\], got nan"),
        ({"horizon": 0}, "gridworld: horizon must be a positive integer, got 0"),
        ({"gamma": 2.0}, r"gridworld: gamma must be in \[0, 1\], got 2"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        gridworld(**settings)


def test_borders_belong_to_a_box():
    corners = jnp.array([[0.75, 0.99], [0.74, 0.8], [0.8, 0.995]])
    assert inside(corners, (0.75, 0.99)).tolist() == [True, False, False]


def test_settings_reach_the_description():
    assert "probability 0.25" in task("gridworld", slip=0.25).description
    assert "stops after 7 steps" in task("gridworld", horizon=7).description


def test_the_picture_shows_boxes_and_point_where_they_are():
    picture = control_pictures.gridworld((0.3, 0.8), start=(0.125, 0.125), goal=(0.75, 0.99), trap=(0.4, 0.6))
    side = picture.shape[0]

    def at(x, y):
        pixel = picture[round((1.02 - y) / 1.04 * side), round((x + 0.02) / 1.04 * side)]
        return tuple(int(value) for value in pixel)

    def hexed(name):
        return tuple(int(name[i : i + 2], 16) for i in (1, 3, 5))

    for place, name in (
        ((0.3, 0.8), rendering.BLUE),
        ((0.9, 0.9), rendering.GREEN),
        ((0.77, 0.97), rendering.GREEN),
        ((0.5, 0.5), rendering.GOLD),
        ((0.125, 0.125), rendering.LIGHT),
        ((0.8, 0.3), rendering.PAPER),
    ):
        assert np.abs(np.subtract(at(*place), hexed(name))).max() < 40, place
