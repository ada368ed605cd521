"""Rewards learned from preferences: the weaknesses of teachers, and training on tasks with known answers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reward_design.agents import dqn, ppo
from reward_design.core import Transition
from reward_design.envs import task
from reward_design.envs.base import example_transition
from reward_design.preferences import (
    PRESETS,
    Factor,
    bradley_terry,
    heron,
    preference_reward,
    ranked_teacher,
    space_inputs,
    synthetic_teacher,
    task_factors,
)
from tests.preference_envs import SMALL, A, B, TwoArms, changed

KEY = jax.random.key(0)


# --- teachers -----------------------------------------------------------------------------------------------------


def answers(seed=0, num=20_000, **settings):
    """A synthetic teacher's answers on random segments of three steps, with the returns that it saw."""
    teacher = synthetic_teacher(**settings)
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(2, num, 3, 1)).astype(np.float32)
    mask = np.ones((2, num, 3), bool)
    values = teacher.value(teacher.params, jnp.asarray(steps), jnp.asarray(mask))
    units = teacher.calibrate(values[0], jnp.ones(num, bool))
    return teacher.answer(teacher.params, units, KEY, values[0], values[1]), steps[..., 0], units


def test_oracle_prefers_the_larger_return():
    answer, steps, _ = answers()
    np.testing.assert_array_equal(answer.preferred, steps[0].sum(-1) > steps[1].sum(-1))
    np.testing.assert_array_equal(answer.weight, 1.0)


def test_teachers_have_the_weaknesses_they_are_named_after():
    right, steps, _ = answers()
    returns = steps.sum(-1)
    mistaken, _, _ = answers(mistake=0.1)
    assert np.mean(mistaken.preferred != right.preferred) == pytest.approx(0.1, abs=0.01)

    noisy, _, units = answers(rationality=2.0)
    p = 1 / (1 + np.exp(-2.0 * (returns[0] - returns[1]) / units["spread"]))
    for low in (0.1, 0.45, 0.8):
        near = (p > low) & (p < low + 0.1)
        assert np.mean(noisy.preferred[near]) == pytest.approx(p[near].mean(), abs=0.04)

    skipping, _, _ = answers(skip=0.3)
    lowest = np.quantile(returns[0], 0.3)
    np.testing.assert_allclose(np.asarray(skipping.weight) == 0, (returns < lowest).all(0), atol=1e-2)
    assert np.mean(skipping.weight == 0) == pytest.approx(0.09, abs=0.01)

    equal, _, units = answers(equal=0.5)
    np.testing.assert_array_equal(
        equal.preferred == 0.5, np.abs(returns[0] - returns[1]) <= 0.5 * float(units["spread"])
    )
    myopic, _, _ = answers(myopia=0.5)
    weighted = steps @ np.array([0.25, 0.5, 1.0], np.float32)
    np.testing.assert_array_equal(myopic.preferred, weighted[0] > weighted[1])
    assert np.mean(myopic.preferred != right.preferred) > 0.05


def test_myopia_counts_back_from_the_last_step_of_a_short_segment():
    teacher = synthetic_teacher(myopia=0.5)
    steps, mask = jnp.ones((1, 4, 1)), jnp.array([[True, True, False, False]])
    np.testing.assert_allclose(teacher.value(teacher.params, steps, mask), [[1.5, 2.0]])


def test_settings_of_teachers_and_learning_are_checked():
    assert all(synthetic_teacher(**settings).levels == ("return",) for settings in PRESETS.values())
    weaknesses: Any = (
        ({"mistake": 1.5}, r"mistake must be in \[0, 1\], got 1.5"),
        ({"myopia": 0.0}, r"myopia must be in \(0, 1\], got 0.0"),
        ({"rationality": -1.0}, "rationality must be above 0"),
    )
    for settings, message in weaknesses:
        with pytest.raises(ValueError, match=message):
            synthetic_teacher(**settings)
    for settings, message in (
        ({"pool": "median"}, "pool must be 'sum' or 'mean', got 'median'"),
        ({"capacity": 10}, "capacity must be at least num_calibration = 40, got 10"),
        ({"num_calibration": 10}, "num_calibration must be at least 20, got 10"),
        ({"selection": "entropy"}, "needs max_labels"),
        ({"batch_segments": 1}, "batch_segments must be at least 2, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            changed(**settings)
    with pytest.raises(ValueError, match="needs num_members of at least 2, got 1"):
        preference_reward(synthetic_teacher(), config=changed(selection="disagreement", max_labels=100))
    with pytest.raises(ValueError, match="num_members must be at least 1, got 0"):
        bradley_terry(num_members=0)
    with pytest.raises(TypeError, match=r"inputs must return floating point \[\*batch, d\]"):
        bradley_terry(lambda t: t.reward).init(KEY, task("pendulum").example)
    wide = heron([Factor("wide", lambda t: t.next_obs)], config=SMALL)
    with pytest.raises(ValueError, match=r"factor 'wide' must return one number per transition"):
        ppo.train(CONFIG, TwoArms(), wide, KEY)


# --- training -----------------------------------------------------------------------------------------------------

CONFIG = ppo.Config(total_timesteps=6144, num_envs=8, num_steps=32, gamma=0.9, hidden=(16,), entropy_coef=0.001)


def arms(result):
    """Share of each action in the mode of the policy at every time of an episode."""
    env = TwoArms()
    obs = jnp.arange(8.0)[:, None]
    actions = ppo.act(CONFIG, env, result.state, obs, KEY, deterministic=True)
    return np.bincount(np.asarray(actions), minlength=3) / 8


def learn(*factors, config=SMALL, **settings):
    reward = heron(factors, inputs=space_inputs(TwoArms()), config=config, **settings)
    return ppo.train(CONFIG, TwoArms(), reward, KEY)


def test_the_order_of_the_factors_decides_what_is_learned_and_the_environment_has_no_say():
    """The environment pays for the third action alone."""
    for factors, wanted in (((A, B), 0), ((B, A), 1)):
        result = learn(*factors)
        assert arms(result)[wanted] >= 0.75
        assert arms(result)[2] == 0.0
        metrics = {name.removeprefix("reward/"): np.asarray(value) for name, value in result.metrics.items()}
        assert metrics["accuracy"][-1] > 0.85
        assert {"accuracy/a", "accuracy/b", "cycle_rate", "labels", "starved"} <= metrics.keys()
        shares = [metrics[f"decided/{outcome}"][-1] for outcome in ("a", "b", "tie")]
        np.testing.assert_allclose(sum(shares), 1.0, rtol=1e-5)
        assert metrics["rounds"][-1] > 20


def test_margins_can_be_swept_in_one_compilation():
    """With a margin so wide that the first level decides nothing, the second is all that counts."""
    env, reward = TwoArms(), heron([A, B], inputs=space_inputs(TwoArms()), config=SMALL)
    params, _ = reward.init(KEY, example_transition(env))
    wide = {**params, "margins": jnp.array([100.0, 0.0])}
    both = jax.tree.map(lambda *x: jnp.stack(x), params, wide)
    result = jax.vmap(lambda p: ppo.train(CONFIG, env, reward, KEY, reward_params=p))(both)
    shares = np.asarray(result.metrics["reward/decided/a"])[:, -1]
    assert shares[0] > 0.5
    assert shares[1] == 0.0
    for run, wanted in ((0, 0), (1, 1)):
        assert arms(jax.tree.map(lambda x: x[run], result))[wanted] >= 0.75  # noqa: B023


def test_off_policy_agents_are_paid_by_the_reward_of_now():
    config = dqn.Config(
        total_timesteps=4096, num_envs=8, num_steps=8, gamma=0.9, hidden=(16,), learning_starts=64, batch_size=64,
        learning_rate=1e-2,
    )  # fmt: skip
    result = dqn.train(config, TwoArms(), heron([A, B], inputs=space_inputs(TwoArms()), config=SMALL), KEY)
    actions = dqn.act(config, TwoArms(), result.state, jnp.arange(8.0)[:, None], KEY, deterministic=True)
    assert (np.asarray(actions) == 0).mean() >= 0.75


def test_answers_of_a_teacher_are_asked_once_and_kept():
    config = changed(max_labels=50, num_questions=20, selection="disagreement")
    teacher = synthetic_teacher(lambda t: (t.action == 1).astype(float), **PRESETS["mistake"])
    reward = preference_reward(teacher, inputs=space_inputs(TwoArms()), num_members=3, config=config)
    result = ppo.train(CONFIG, TwoArms(), reward, KEY)
    labels = np.asarray(result.metrics["reward/labels"])
    assert labels.max() == 50
    assert set(labels.tolist()) == {20.0, 40.0, 50.0}
    assert arms(result)[1] >= 0.75
    asked = result.state.learner_state.asked
    assert int(asked.count) == 50
    assert (np.asarray(asked.length) == 4).all()


@pytest.fixture(scope="module")
def update():
    """``trajectory -> (params, state, metrics)``, from the start, on 8-step episodes."""
    factors = [A, Factor("paid", lambda t: t.reward)]
    reward = heron(factors, inputs=space_inputs(TwoArms()), config=SMALL)

    @jax.jit
    def run(t):
        example = jax.tree.map(lambda x: x[0], t)
        params, state = reward.init(KEY, example)
        params, learned, metrics = reward.learner.update(
            params, reward.learner.init(KEY, params, example), t, jax.random.key(1)
        )
        return params, learned, metrics, reward.unroll(params, state, t)[0].reward

    return run


def episodes(padding):
    """Random actions in episodes of 8 steps; every other row is no experience but ``padding``."""
    time, lanes = 120, 4
    obs = jnp.asarray(np.broadcast_to(np.arange(time)[:, None, None] % 8, (time, lanes, 1)), jnp.float32)
    done = jnp.asarray(np.broadcast_to(np.arange(time)[:, None] % 8 == 7, (time, lanes)))
    action = jnp.asarray(np.random.default_rng(0).integers(0, 3, (time, lanes)), jnp.int32)
    zeros = jnp.zeros((time, lanes))
    t = Transition(obs, action, obs + 1, zeros, zeros > 0, done, zeros == 0)
    empty = jax.tree.map(lambda x: jnp.full_like(x, padding), t)._replace(mask=zeros > 0)
    return jax.tree.map(lambda a, b: jnp.stack([a, b], 1).reshape(2 * time, *a.shape[1:]), t, empty)


def test_masked_rows_teach_nothing(update):
    clean, dirty = update(episodes(0)), update(episodes(1))
    for x, y in zip(jax.tree.leaves(clean), jax.tree.leaves(dirty)):
        np.testing.assert_array_equal(x, y)
    assert float(clean[2]["rounds"]) == 4
    unmasked = episodes(1)._replace(mask=jnp.ones((240, 4), bool))
    assert float(update(unmasked)[2]["loss"]) != float(clean[2]["loss"])


def test_a_factor_that_is_not_finite_makes_the_reward_so(update):
    """Agents stop at a reward that is not finite, and name it."""
    t = episodes(0)
    assert jnp.isfinite(update(t)[3]).all()
    broken = t._replace(reward=t.reward.at[6, 1].set(jnp.nan))
    assert jnp.isnan(update(broken)[3])[np.asarray(t.mask)].all()
    masked = t._replace(reward=t.reward.at[7, 1].set(jnp.nan))  # a row that is no experience
    assert jnp.isfinite(update(masked)[3]).all()


def test_million_pairs_are_labelled_in_one_call():
    teacher = ranked_teacher(task_factors(task("pendulum"), ["tilt", "speed", "effort"]))
    values = jax.random.normal(KEY, (2, 1_000_000, 3))
    units = teacher.calibrate(values[0, :1000], jnp.ones(1000, bool))
    answer = jax.jit(lambda a, b: teacher.answer(teacher.params, units, KEY, a, b))(values[0], values[1])
    margins = np.asarray(teacher.params["margins"] * units["level_spread"])
    a, b = np.asarray(values)
    decided = np.abs(a - b) > margins
    level = np.where(decided.any(1), decided.argmax(1), 3)
    assert np.mean(np.asarray(answer.level) == level) > 1 - 1e-5


@pytest.mark.slow
def test_pendulum_swings_up_by_ranks_alone():
    """Return of the environment, which the agent never sees: about -1200 at random, -150 for good policies."""
    pendulum = task("pendulum")
    reward = heron(task_factors(pendulum, ["tilt", "speed", "effort"], margins=[0.1, 0.2, 0.5]))
    config = ppo.Config(total_timesteps=200_000, gamma=pendulum.gamma, normalise_reward=True)
    result = ppo.train(config, pendulum, reward, KEY)
    final = np.asarray(result.metrics["true_return"])[-20:].mean()
    assert final > -300
    assert np.asarray(result.metrics["reward/accuracy"])[-1] > 0.9
