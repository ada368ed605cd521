"""The constructors and the episode guard, against a naive loop over lanes and rows."""

import inspect
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reward_design as rd
from reward_design import Kind, Reward, State, Transition
from reward_design.constructors import strong_types
from reward_design.rollouts import random_trajectory, with_garbage
from tests.cases import array_example, dict_example, fatigue, reward_to_go, speed

KEY = jax.random.key(0)


def start(reward, trajectory):
    return reward.init(KEY, jax.tree.map(lambda x: x[0], trajectory))


def score(reward, trajectory):
    return reward.unroll(*start(reward, trajectory), trajectory)


def naive_fatigue(t):
    """The reward of cases.fatigue in NumPy, one row and one lane at a time."""
    time, lanes = t.mask.shape
    steps, tired, out = 0.0, np.zeros(lanes), np.zeros((time, lanes))
    for row in range(time):
        for lane in np.flatnonzero(t.mask[row]):
            out[row, lane] = -0.1 * tired[lane] / (1 + 0.1 * steps)
            tired[lane] = 0 if t.terminated[row, lane] or t.truncated[row, lane] else tired[lane] + 1
        steps += t.mask[row].sum()
    return out, tired, steps


@pytest.mark.parametrize("seed", range(3))
def test_guard_equals_a_naive_loop(seed):
    t = random_trajectory(array_example(), seed=seed)
    output, state = score(fatigue(), with_garbage(t))
    reward, tired, steps = naive_fatigue(t)
    np.testing.assert_allclose(output.reward, reward, rtol=1e-5)
    np.testing.assert_allclose(state.episode, tired)
    assert state.running["steps"] == steps
    unguarded = naive_fatigue(t._replace(mask=np.ones_like(t.mask)))[0]
    assert np.abs(unguarded - reward).max() > 0.01


def test_pointwise_equals_a_naive_loop_and_folds_time_into_the_batch():
    t = random_trajectory(array_example())
    seen = []

    def fn(params, transition):
        seen.append(transition.obs.shape)
        return params["weight"] * jnp.sum((transition.next_obs - transition.obs) ** 2, axis=-1)

    output, _ = score(rd.pointwise("speed", fn, params={"weight": 0.5}), t)
    expected = 0.5 * ((t.next_obs - t.obs) ** 2).sum(-1) * t.mask
    np.testing.assert_allclose(output.reward, expected, rtol=1e-5)
    assert seen == [(36, 4)]


def test_trajectory_equals_a_naive_loop():
    t = random_trajectory(array_example())
    time, lanes = t.mask.shape
    expected = np.zeros((time, lanes))
    for lane in range(lanes):
        rest = 0.0
        for row in reversed(np.flatnonzero(t.mask[:, lane])):
            rest = t.reward[row, lane] + (0.0 if t.terminated[row, lane] or t.truncated[row, lane] else rest)
            expected[row, lane] = 2 * rest
    output, state = score(reward_to_go(), with_garbage(t))
    np.testing.assert_allclose(output.reward, expected, rtol=1e-5)
    assert state.running["steps"] == t.mask.sum()


def test_a_rollout_may_be_cut_anywhere():
    t = random_trajectory(array_example())
    params, state = start(fatigue(), t)
    whole, final = fatigue().unroll(params, state, t)
    parts = []
    for piece in (slice(0, 5), slice(5, 6), slice(6, 12)):
        output, state = fatigue().unroll(params, state, jax.tree.map(lambda x, p=piece: x[p], t))
        parts.append(output.reward)
    np.testing.assert_allclose(np.concatenate(parts), whole.reward, rtol=1e-6)
    jax.tree.map(np.testing.assert_allclose, state, final)


def test_params_may_be_values_or_a_function_of_key_and_example():
    values = rd.pointwise("r", lambda p, t: p["w"] * t.reward, params={"w": 2})
    made = rd.pointwise("r", lambda p, t: p["w"] * t.reward, params=lambda key, t: {"w": jnp.zeros(t.obs.shape[1])})
    assert values.init(KEY, array_example())[0]["w"].dtype == jnp.int32
    assert made.init(KEY, array_example())[0]["w"].shape == (4,)


def test_params_can_be_swept_with_one_compilation():
    t = random_trajectory(array_example())
    params, state = start(speed(), t)
    traces = []

    @jax.jit
    def total(weight):
        traces.append(1)
        return speed().unroll(params | {"weight": weight}, state, t)[0].reward.sum()

    totals = [total(jnp.float32(w)) for w in (0.5, 1.0, 2.0)]
    np.testing.assert_allclose(np.array(totals) / totals[1], [0.5, 1.0, 2.0], rtol=1e-5)
    assert len(traces) == 1


def test_state_may_be_given_as_the_episode_part_alone():
    reward = rd.from_step("n", lambda k, e: ((), jnp.zeros(e.mask.shape)), lambda p, s, t: (s.episode, s))
    _, state = reward.init(KEY, array_example())
    assert isinstance(state, State)
    np.testing.assert_array_equal(state.fresh, state.episode)


def test_terms_are_masked_and_cast_to_the_type_of_the_reward(float64):
    t = random_trajectory(array_example())
    terms = lambda t: (t.obs[:, 0].astype(jnp.float64), {"a": t.obs[:, 0].astype(jnp.float64)})  # noqa: E731
    output, _ = score(rd.pointwise("r", terms), t)
    assert output.reward.dtype == output.terms["a"].dtype == jnp.float32
    assert not output.terms["a"][~t.mask].any()
    in_double = t._replace(reward=t.reward.astype(np.float64))
    assert score(rd.pointwise("r", terms), in_double)[0].reward.dtype == jnp.float64


def test_strong_types_have_no_weak_type():
    assert jnp.asarray(0.5).weak_type
    assert not strong_types({"a": 0.5})["a"].weak_type


@pytest.mark.parametrize(
    ("fn", "error", "sentence"),
    [
        (lambda t: t.obs, ValueError, r"reward 'bad' must have shape \[B\] = \(3,\), got \(3, 4\); reduce or squeeze"),
        (lambda t: (t.reward, {"x": t.obs}), ValueError, r"term 'x' of reward 'bad' must have shape \[B\]"),
        (lambda t: t.action, TypeError, "reward 'bad' must be floating point, got int32; cast it"),
    ],
)
def test_bad_outputs_are_refused_when_traced(fn, error, sentence):
    reward = rd.pointwise("bad", fn)
    params, state = reward.init(KEY, array_example())
    with pytest.raises(error, match=sentence):
        reward.step(params, state, array_example())


def test_unroll_names_both_axes_in_the_error():
    bad = rd.from_trajectory("bad", lambda k, e: ((), State()), lambda p, s, t: (t.reward[0], s))
    with pytest.raises(ValueError, match=r"shape \[T, B\] = \(12, 3\), got \(3,\)"):
        score(bad, random_trajectory(array_example()))


def test_only_trajectory_rewards_lack_a_step():
    step = speed().step
    with pytest.raises(ValueError, match="got kind TRAJECTORY with step=a function"):
        Reward("r", Kind.TRAJECTORY, speed().init, step, speed().unroll)
    with pytest.raises(ValueError, match="got kind CAUSAL with step=None"):
        Reward("r", Kind.CAUSAL, speed().init, None, speed().unroll)


def test_gamma_outside_the_unit_interval_is_refused():
    for factory in (rd.normalise_by_return, lambda *, gamma: rd.potential_shaping(lambda obs: obs, gamma=gamma)):
        for gamma in (1.5, -0.1, float("nan")):
            with pytest.raises(ValueError, match=rf"^gamma must be in \[0, 1\], got {gamma}\.$"):
                factory(gamma=gamma)


def test_done_is_either_flag():
    t = array_example()._replace(terminated=np.array([True, False, False]), truncated=np.array([True, True, False]))
    assert t.done.tolist() == [True, True, False]


def test_describe_draws_a_tree_with_kinds_and_settings():
    total = rd.weighted_sum(
        task=rd.chain(rd.environment_reward(), rd.potential_shaping(naive_fatigue, gamma=0.9)),
        tired=fatigue(),
        weights={"tired": 0.5},
    )
    assert rd.describe(total).splitlines() == [
        "weighted_sum (CAUSAL) weights={task: 1.0, tired: 0.5}",
        "├── task: chain (POINTWISE)",
        "│   ├── environment (POINTWISE)",
        "│   └── potential_shaping (POINTWISE) "
        "phi=naive_fatigue, gamma=0.9, dynamic=False, time_limit_is_terminal=False, add=True",
        "└── tired: fatigue (CAUSAL)",
    ]
    assert [path for path, _ in rd.walk(total)] == [
        "weighted_sum",
        "weighted_sum/task",
        "weighted_sum/task/environment",
        "weighted_sum/task/potential_shaping",
        "weighted_sum/tired",
    ]


def test_check_gamma_names_the_part_that_disagrees():
    reward = rd.chain(rd.normalise_by_return(gamma=0.99), rd.delayed(rd.potential_shaping(lambda o: o, gamma=0.9)))
    with pytest.raises(
        ValueError, match=r"'chain/delayed/potential_shaping' discounts with gamma 0.9, the agent with 0.99"
    ):
        rd.check_gamma(reward, 0.99)
    agreeing = rd.chain(rd.normalise_by_return(gamma=0.99), rd.scale(2.0))
    rd.check_gamma(agreeing, 0.99)
    rd.check_gamma(agreeing, jnp.float32(0.99))
    jax.jit(lambda gamma: rd.check_gamma(reward, gamma) or gamma)(0.5)  # a swept gamma cannot be compared


def test_require_online_refuses_whole_episodes():
    rd.require_online(fatigue())
    rd.require_online(rd.delayed(reward_to_go(), max_length=9))
    with pytest.raises(
        TypeError, match=r"'reward_to_go' needs whole episodes \(kind TRAJECTORY\); a wrapper cannot serve it"
    ):
        rd.require_online(reward_to_go(), "a wrapper")


def test_import_is_light():
    heavy = ("torch", "gymnasium", "matplotlib", "mujoco")
    source = f"import sys, reward_design; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_what_is_not_a_reward_is_refused():
    for factory in (rd.chain, rd.delayed, rd.freeze_running, lambda fn: inspect.unwrap(rd.weighted_sum)(task=fn)):
        with pytest.raises(TypeError, match=r"expects (a Reward|Reward objects), got function; wrap .* in pointwise"):
            inspect.unwrap(factory)(naive_fatigue)


def test_transitions_are_plain_pytrees():
    t = dict_example()
    doubled = jax.tree.map(lambda x: np.concatenate([x, x]), t)
    assert isinstance(doubled, Transition)
    assert doubled.obs["image"].shape == (6, 2, 2)
