"""check_reward refuses one deliberately broken reward per clause, and random rollouts hold what they promise."""

import dataclasses
import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.core import Tracer

import reward_design as rd
from reward_design import Kind, Output, Reward, State
from reward_design.constructors import scan_step
from reward_design.rollouts import episode_number, random_trajectory, with_garbage
from reward_design.testing import ContractError, check_reward
from tests.cases import array_example, dict_example, reward_to_go, vector


def raw(step, *, init=lambda key, example: ((), State((), (), ())), kind=Kind.CAUSAL, unroll=None):
    """A reward without the guard of the constructors."""
    return Reward("broken", kind, init, step, unroll or scan_step(step))


def paid(reward):
    return Output(reward, {"broken": reward})


def masked_reward(t):
    return jnp.where(t.mask, t.reward, 0.0)


def with_state(running):
    return lambda key, example: ((), State((), running, ()))


def lanes(example):
    return jnp.zeros(example.mask.shape)


def not_a_state():
    return raw(lambda p, s, t: (paid(masked_reward(t)), s), init=lambda key, example: ((), 0))


def wrong_lanes():
    return rd.from_step("broken", lambda k, e: ((), State(jnp.zeros(7))), lambda p, s, t: (t.reward, s))


def wrong_fresh():
    init = lambda key, example: ((), State(lanes(example), (), jnp.zeros(7)))  # noqa: E731
    return raw(lambda p, s, t: (paid(masked_reward(t)), s), init=init)


def no_terms():
    return raw(lambda p, s, t: (Output(masked_reward(t), {}), s))


def wrong_shape():
    return rd.pointwise("broken", lambda t: t.obs[:, :1])


def wrong_shape_unguarded():
    return raw(lambda p, s, t: (paid(masked_reward(t)[:, None]), s))


def wrong_dtype():
    return raw(lambda p, s, t: (paid(masked_reward(t).astype(jnp.float16)), s))


def integer():
    return rd.pointwise("broken", lambda t: t.action)


def not_finite():
    return rd.pointwise("broken", lambda t: jnp.log(-jnp.ones_like(t.reward)))


def wrong_terms():
    return rd.pointwise("broken", lambda t: (t.reward, {"half": 0.4 * t.reward, "rest": 0.5 * t.reward}))


def wrong_environment_term():
    return rd.pointwise("broken", lambda t: (2 * t.reward, {"environment": 2 * t.reward}))


def pays_masked_rows():
    return raw(lambda p, s, t: (paid(t.reward), s), kind=Kind.POINTWISE)


def reads_masked_rows():
    return raw(lambda p, s, t: (paid(masked_reward(t) + 0 * t.obs.sum(axis=-1)), s))


def counts_masked_steps():
    step = lambda p, s, t: (t.reward, s._replace(running=s.running + 1))  # noqa: E731
    return rd.from_step("broken", with_state(jnp.zeros(())), step)


def never_restarts():
    init = lambda key, example: ((), State(lanes(example), (), lanes(example)))  # noqa: E731

    def step(params, state, t):
        total = state.episode + masked_reward(t)
        return paid(jnp.where(t.mask, total, 0.0)), state._replace(episode=total)

    return raw(step, init=init)


def leaks_over_episodes():
    return rd.from_trajectory("broken", lambda k, e: ((), State()), lambda p, s, t: (jnp.cumsum(t.reward, 0), s))


def compares_lanes():
    return rd.from_step("broken", lambda k, e: ((), State()), lambda p, s, t: (t.reward - t.reward.mean(), s))


def hides_memory():
    step = lambda p, s, t: (t.reward + s.episode, s._replace(episode=s.episode + 1))  # noqa: E731
    return rd.from_step("broken", lambda k, e: ((), State(lanes(e))), step, kind=Kind.POINTWISE)


def unrolls_differently():
    honest, other = (rd.pointwise("broken", lambda t, f=factor: f * t.reward) for factor in (2.0, 3.0))
    return dataclasses.replace(honest, unroll=other.unroll)


def final_state_differs():
    honest = rd.normalise_by_return(gamma=0.9)
    return dataclasses.replace(honest, unroll=lambda p, s, t: (honest.unroll(p, s, t)[0], s))


def tells_jit():
    traced = lambda x: isinstance(x, Tracer)  # noqa: E731
    return rd.pointwise("broken", lambda t: t.reward * (2.0 if traced(t.reward) else 1.0))


def tells_jit_in_unroll():
    factor = lambda x: 2.0 if isinstance(x, Tracer) else 1.0  # noqa: E731
    return rd.from_trajectory("broken", lambda k, e: ((), State()), lambda p, s, t: (t.reward * factor(t.reward), s))


def cannot_be_traced():
    return rd.pointwise("broken", lambda t: jnp.asarray(np.asarray(t.reward) * 2))


def init_cannot_be_traced():
    return rd.pointwise("broken", lambda p, t: p * t.reward, params=lambda key, e: float(jax.random.normal(key)))


def init_depends_on_tracing():
    size = lambda key: 3 if isinstance(key, Tracer) else 2  # noqa: E731
    return rd.pointwise("broken", lambda p, t: p.sum() + t.reward, params=lambda key, e: jnp.zeros(size(key)))


def wrong_under_vmap():
    @jax.custom_batching.custom_vmap
    def double(x):
        return 2 * x

    @double.def_vmap
    def _(axis_size, in_batched, x):
        return 3 * x, in_batched[0]

    params = lambda key, example: jax.random.normal(key)  # noqa: E731
    return dataclasses.replace(
        rd.pointwise("broken", lambda p, t: double(p) * t.reward, params=params), unroll=reward_vmap_free(params)
    )


def reward_vmap_free(params):
    return rd.pointwise("broken", lambda p, t: 2 * p * t.reward, params=params).unroll


def infinite_gradient():
    return rd.pointwise("broken", lambda p, t: t.reward * jnp.sqrt(p["w"]), params={"w": 0.0})


def weak_state():
    step = lambda p, s, t: (paid(masked_reward(t)), s._replace(running=jnp.asarray(s.running, jnp.float32) + 0))  # noqa: E731
    return raw(step, init=with_state(0.0))


def state_changes_type():
    step = lambda p, s, t: (paid(masked_reward(t)), s._replace(running=jnp.zeros((), jnp.float16)))  # noqa: E731
    unroll = lambda p, s, t: (paid(masked_reward(t)), s._replace(running=jnp.zeros((), jnp.float16)))  # noqa: E731
    return raw(step, unroll=unroll, init=with_state(jnp.zeros(())))


def writes_params():
    def step(params, state, t):
        params["seen"] = 1.0
        return paid(masked_reward(t)), state

    return raw(step, init=lambda key, example: ({"w": jnp.zeros(())}, State((), (), ())))


def writes_observations():
    def step(params, state, t):
        if isinstance(t.obs, np.ndarray):
            t.obs[...] = 0
        return paid(masked_reward(t)), state

    return raw(step)


CLAUSES = [
    (not_a_state, r"init must return \(params, State\)"),
    (wrong_lanes, "must have leading axis B = 3"),
    (wrong_fresh, r"state\.fresh must have the structure"),
    (no_terms, "must return an Output with at least one term"),
    (wrong_shape, r"must have shape \[T, B\]|must have shape \[B\]"),
    (wrong_shape_unguarded, r"must be float32\[12, 3\], got float32\[12, 3, 1\]"),
    (wrong_dtype, r"must be float32\[12, 3\], got float16"),
    (integer, "must be floating point"),
    (not_finite, "must be finite"),
    (wrong_terms, "terms must sum to the reward"),
    (wrong_environment_term, "'environment' must be the incoming reward"),
    (pays_masked_rows, "masked rows must earn 0"),
    (reads_masked_rows, "masked rows must change nothing, whatever they hold"),
    (counts_masked_steps, "rollout of masked rows must leave the state"),
    (never_restarts, "episode state of ended lanes must be fresh"),
    (leaks_over_episodes, "must not be influenced by the one before it"),
    (compares_lanes, "lanes must not influence each other"),
    (hides_memory, "a POINTWISE reward must not depend on other rows"),
    (unrolls_differently, "step and unroll must give the same rewards and terms"),
    (final_state_differs, "step and unroll must give the same state"),
    (tells_jit, "step must give the same with and without jit"),
    (tells_jit_in_unroll, "unroll must give the same with and without jit"),
    (cannot_be_traced, "also under jit, got TracerArrayConversionError"),
    (init_cannot_be_traced, "init must run, also under jit"),
    (init_depends_on_tracing, "init must give the same structure"),
    (wrong_under_vmap, "vmap over params and state"),
    (infinite_gradient, r"gradients .* params\['w'\]"),
    (weak_state, "traced 2 times"),
    (state_changes_type, "must return a State with the structure"),
    (writes_params, "must not modify its inputs, but it changed their structure"),
    (writes_observations, "must not modify its inputs"),
]


@pytest.mark.parametrize(("broken", "sentence"), CLAUSES, ids=lambda x: getattr(x, "__name__", ""))
def test_every_clause_is_checked(broken, sentence):
    with pytest.raises(ContractError, match=sentence):
        check_reward(broken(), array_example())


def test_the_error_is_an_assertion_error_and_names_the_reward():
    with pytest.raises(AssertionError, match=r"^'broken': "):
        check_reward(wrong_terms(), array_example())


def test_what_is_checked_must_be_a_reward():
    with pytest.raises(TypeError, match="check_reward expects a Reward, got function"):
        inspect.unwrap(check_reward)(wrong_terms, array_example())  # without the type hook of the tests


def test_one_row_and_zero_values_are_enough_of_an_example():
    zeros = jax.tree.map(lambda x: np.zeros((1, *x.shape[1:]), x.dtype), dict_example())
    check_reward(rd.pointwise("speed", lambda t: vector(t.next_obs)[:, 0]), zeros)


@pytest.mark.parametrize("seed", range(5))
def test_random_rollouts_have_every_ending_and_consistent_observations(seed):
    t = random_trajectory(dict_example(), seed=seed)
    for flags in (t.terminated & ~t.truncated, ~t.terminated & t.truncated, t.terminated & t.truncated, ~t.mask):
        assert flags.any()
    assert episode_number(t).max() >= 1
    for lane in range(t.mask.shape[1]):
        rows = [r for r in range(len(t.mask)) if t.mask[r, lane]]
        for row, following in itertools.pairwise(rows):
            same = (t.next_obs["position"][row, lane] == t.obs["position"][following, lane]).all()
            assert same == (not (t.terminated | t.truncated)[row, lane])


def test_garbage_fills_masked_rows_only():
    clean = random_trajectory(dict_example())
    spoilt = with_garbage(clean)
    assert np.isnan(spoilt.obs["position"][~clean.mask]).all()
    assert (spoilt.obs["image"][~clean.mask] == 255).all()
    kept = jax.tree.map(lambda a, b: (a[clean.mask] == b[clean.mask]).all(), clean, spoilt)
    assert all(jax.tree.leaves(kept))


def test_trajectory_rewards_pass():
    check_reward(reward_to_go(), dict_example())
