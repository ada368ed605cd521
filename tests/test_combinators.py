"""Combinators against loops over lanes and rows; terms, names and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reward_design as rd
from reward_design import Kind
from reward_design.rollouts import random_trajectory, with_garbage
from tests.cases import array_example, fatigue, height, mixture, normalised_to_go, random_weight, reward_to_go, speed

KEY = jax.random.key(0)
ROLLOUT = random_trajectory(array_example())
ENDED = ROLLOUT.mask & (ROLLOUT.terminated | ROLLOUT.truncated)


def start(reward, t=ROLLOUT):
    return reward.init(KEY, jax.tree.map(lambda x: x[0], t))


def score(reward, t=ROLLOUT):
    return reward.unroll(*start(reward, t), t)


def by_steps(reward, t=ROLLOUT):
    params, state = start(reward, t)
    step, outputs = jax.jit(reward.step), []
    for row in range(t.mask.shape[0]):
        output, state = step(params, state, jax.tree.map(lambda x, r=row: x[r], t))
        outputs.append(output)
    return jax.tree.map(lambda *x: np.stack(x), *outputs), state


def episode_sums(values, t=ROLLOUT):
    """``[T, B]`` with the sum over the episode at its last row, 0 elsewhere."""
    out, total = np.zeros_like(values), np.zeros(values.shape[1])
    for row in range(len(values)):
        total = total + np.where(t.mask[row], values[row], 0)
        ended = t.mask[row] & (t.terminated[row] | t.truncated[row])
        out[row], total = np.where(ended, total, 0), np.where(ended, 0, total)
    return out


# --- chain -----------------------------------------------------------------------------------------------------------


def test_chain_feeds_each_link_the_output_before_it():
    output, _ = score(rd.chain(rd.scale(3.0), rd.clip(-1.0, 2.0), rd.scale(10.0)))
    np.testing.assert_allclose(output.reward, 10 * np.clip(3 * ROLLOUT.reward, -1, 2) * ROLLOUT.mask, rtol=1e-5)
    other_order = score(rd.chain(rd.scale(10.0), rd.clip(-1.0, 2.0), rd.scale(3.0)))[0].reward
    assert np.abs(other_order - output.reward).max() > 1


def test_chain_terms_show_the_contribution_of_every_link():
    output, _ = score(rd.chain(rd.potential_shaping(height, gamma=0.9), rd.clip(-0.5, 0.5), fatigue()))
    assert list(output.terms) == ["fatigue"]  # fatigue ignores the incoming reward, and so do the terms
    output, _ = score(rd.chain(rd.scale(2.0), rd.scale(2.0), rd.clip(-0.5, 0.5)))
    assert list(output.terms) == ["environment", "scale", "scale_2", "clip"]
    np.testing.assert_allclose(output.terms["environment"], ROLLOUT.reward * ROLLOUT.mask)
    np.testing.assert_allclose(output.terms["scale_2"], 2 * ROLLOUT.reward * ROLLOUT.mask, rtol=1e-5)
    np.testing.assert_allclose(sum(output.terms.values()), output.reward, atol=1e-6)


def test_chain_names_repeated_links():
    reward = rd.chain(rd.scale(2.0), rd.scale(3.0), rd.scale(4.0))
    params, _ = start(reward)
    assert {name: float(p["factor"]) for name, p in params.items()} == {"scale": 2.0, "scale_2": 3.0, "scale_3": 4.0}


def test_chain_of_chains_is_the_flat_chain():
    flat = rd.chain(rd.count_bonus(), rd.scale(0.5), rd.clip())
    nested = rd.chain(rd.chain(rd.count_bonus(), rd.scale(0.5)), rd.clip())
    # The projection of count_bonus depends on the key, which the nested chain splits again: hand over the same params.
    params, state = start(flat)
    inner = {name: params[name] for name in ("count_bonus", "scale")}
    output, _ = nested.unroll({"chain": inner, "clip": params["clip"]}, start(nested)[1], ROLLOUT)
    np.testing.assert_allclose(output.reward, flat.unroll(params, state, ROLLOUT)[0].reward, rtol=1e-6)


def test_chain_needs_a_link():
    with pytest.raises(ValueError, match="chain needs at least one reward, got none; use environment_reward"):
        rd.chain()


def test_kinds_are_the_maximum_of_the_parts():
    assert rd.chain(speed(), rd.clip()).kind is Kind.POINTWISE
    assert rd.chain(speed(), fatigue()).kind is Kind.CAUSAL
    assert rd.weighted_sum(a=reward_to_go(), b=fatigue()).kind is Kind.TRAJECTORY
    assert rd.chain(fatigue(), reward_to_go()).step is None


# --- weighted_sum ----------------------------------------------------------------------------------------------------


def test_weighted_sum_adds_weighted_parts_of_one_transition():
    total = rd.weighted_sum(
        task=rd.environment_reward(), tired=fatigue(), speed=speed(), weights={"tired": 2, "speed": -1.0}
    )
    output, _ = score(total)
    parts = {"task": (1, rd.environment_reward()), "tired": (2, fatigue()), "speed": (-1, speed())}
    for name, (weight, part) in parts.items():
        np.testing.assert_allclose(output.terms[name], weight * score(part)[0].reward, rtol=1e-5)
    np.testing.assert_allclose(output.reward, sum(output.terms.values()), rtol=1e-5, atol=1e-6)


def test_weighted_sum_names_the_terms_of_parts_with_several():
    output, _ = score(rd.weighted_sum(task=rd.potential_shaping(height, gamma=0.9), speed=speed()))
    assert set(output.terms) == {"task/environment", "task/potential_shaping", "speed"}


def test_weights_are_params():
    total = rd.weighted_sum(task=rd.environment_reward(), speed=speed())
    params, state = start(total)
    gradient = jax.grad(lambda w: total.unroll(params | {"weights": w}, state, ROLLOUT)[0].reward.sum())(
        params["weights"]
    )
    np.testing.assert_allclose(gradient["speed"], score(speed())[0].reward.sum(), rtol=1e-5)
    weights = {"task": jnp.array([1.0, 0.0]), "speed": jnp.array([0.0, 1.0])}
    swept = jax.vmap(lambda w: total.unroll(params | {"weights": w}, state, ROLLOUT)[0].reward)(weights)
    np.testing.assert_allclose(swept[0], ROLLOUT.reward * ROLLOUT.mask, rtol=1e-6)


def test_weighted_sum_refuses_what_makes_no_sense():
    with pytest.raises(ValueError, match="needs at least one reward, got none"):
        rd.weighted_sum()
    with pytest.raises(ValueError, match=r"got weights for \['spede'\], but its rewards are \['speed'\]"):
        rd.weighted_sum(speed=speed(), weights={"spede": 1.0})
    with pytest.raises(ValueError, match="'environment' is reserved for the incoming reward"):
        rd.weighted_sum(environment=rd.environment_reward())


# --- delayed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", [speed, fatigue, lambda: rd.potential_shaping(height, gamma=0.9)])
def test_delayed_pays_the_sum_when_the_episode_ends(inner):
    output, _ = score(rd.delayed(inner()), with_garbage(ROLLOUT))
    undelayed, _ = score(inner())
    np.testing.assert_allclose(output.reward, episode_sums(undelayed.reward), rtol=1e-4, atol=1e-5)
    assert set(output.terms) == {f"delayed/{name}" for name in undelayed.terms}
    assert np.abs(output.reward[ENDED]).max() > 0


def test_delayed_trajectory_reward_scores_every_episode_whole():
    """Each finished episode is scored by itself, and the running state has only seen the finished ones before it."""
    output, state = by_steps(rd.delayed(reward_to_go(), max_length=12))
    expected, seen = np.zeros_like(output.reward), 0.0
    weighted, length = np.zeros(3), np.zeros(3)  # the rest of the episode, added up over the episode, is Σ k·r_k
    for row in range(len(ROLLOUT.mask)):
        length = length + ROLLOUT.mask[row]
        weighted = weighted + np.where(ROLLOUT.mask[row], length * ROLLOUT.reward[row], 0)
        expected[row] = np.where(ENDED[row], 2 * weighted / (1 + seen), 0)
        seen += length[ENDED[row]].sum()
        weighted, length = np.where(ENDED[row], 0, weighted), np.where(ENDED[row], 0, length)
    np.testing.assert_allclose(output.reward, expected, rtol=1e-4)
    assert state.running["steps"] == seen < ROLLOUT.mask.sum()


def test_delayed_pays_nan_for_an_episode_that_is_too_long():
    short = by_steps(rd.delayed(reward_to_go(), max_length=2))[0].reward
    lengths = episode_sums(np.ones_like(ROLLOUT.reward))
    np.testing.assert_array_equal(np.isnan(short), lengths > 2)
    assert (lengths > 2).any()
    assert ((lengths > 0) & (lengths <= 2)).any()


def test_delayed_needs_a_maximum_length_for_whole_episodes():
    with pytest.raises(ValueError, match=r"'reward_to_go' needs whole episodes .* so max_length .* must be given"):
        rd.delayed(reward_to_go())
    with pytest.raises(ValueError, match="max_length must be at least 1, got 0"):
        rd.delayed(reward_to_go(), max_length=0)


# --- ensemble --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduce", ["mean", "median", "min", "max", "lcb"])
def test_ensemble_equals_its_members_one_by_one(reduce):
    reward = rd.ensemble(rd.chain(random_weight(), fatigue_like()), 5, reduce=reduce, coefficient=0.5)
    params, state = start(reward)
    output, _ = reward.unroll(params, state, ROLLOUT)
    member, (_, alone) = rd.chain(random_weight(), fatigue_like()), start(rd.chain(random_weight(), fatigue_like()))
    each = [
        member.unroll(jax.tree.map(lambda x, k=k: x[k], params["members"]), alone, ROLLOUT)[0].reward for k in range(5)
    ]
    rule = {"lcb": lambda x, axis: x.mean(axis) - 0.5 * x.std(axis)}.get(reduce) or getattr(np, reduce)
    np.testing.assert_allclose(output.reward, rule(np.stack(each), axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sum(output.terms.values()), output.reward, rtol=1e-4, atol=1e-5)
    assert np.stack(each).std(axis=0)[ROLLOUT.mask].min() > 0


def fatigue_like():
    """A causal link that adds to what comes in."""

    def step(params, state, t):
        return t.reward - 0.1 * state.episode, state._replace(episode=state.episode + 1)

    return rd.from_step("tired", lambda key, e: ((), rd.State(jnp.zeros_like(e.reward))), step)


def test_ensemble_of_equal_members_has_finite_gradients():
    reward = rd.ensemble(speed(), 3, reduce="lcb")
    params, state = start(reward)
    gradient = jax.grad(lambda p: reward.unroll(p, state, ROLLOUT)[0].reward.sum())(params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))
    np.testing.assert_allclose(score(reward)[0].reward, score(speed())[0].reward, rtol=1e-5)


def test_ensemble_refuses_unknown_rules():
    with pytest.raises(ValueError, match="num must be at least 1, got 0"):
        rd.ensemble(speed(), 0)
    with pytest.raises((ValueError, TypeError), match="reduce"):
        rd.ensemble(speed(), 2, reduce="sum")  # pyright: ignore[reportArgumentType]


# --- with_params -----------------------------------------------------------------------------------------------------


def test_with_params_scores_with_them_and_learns_nothing():
    reward = mixture()
    params, state = start(reward)
    changed = jax.tree.map(lambda x: x + 0.25, params)
    for given in (rd.with_params(reward, changed), rd.freeze_running(rd.with_params(reward, changed))):
        own, _ = start(given)
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), own, changed)
    expected = reward.unroll(changed, state, ROLLOUT)[0].reward
    given = rd.with_params(reward, changed)
    np.testing.assert_array_equal(given.unroll(*start(given), ROLLOUT)[0].reward, expected)
    assert np.abs(expected - reward.unroll(params, state, ROLLOUT)[0].reward).max() > 1e-3
    assert given.learner is None
    with pytest.raises(ValueError, match="params of 'scale' must have the structure that its init gives"):
        start(rd.with_params(rd.scale(2.0), {"other": 1.0}))


# --- freeze_running --------------------------------------------------------------------------------------------------


def frozen_by_hand(reward, params, state, t):
    """Step by step with the running state put back after every step."""
    rewards, running = [], state.running
    for row in range(t.mask.shape[0]):
        output, state = reward.step(params, state._replace(running=running), jax.tree.map(lambda x, r=row: x[r], t))
        rewards.append(output.reward)
    return np.stack(rewards)


@pytest.mark.parametrize(
    "build", [fatigue, mixture, lambda: rd.chain(rd.normalise_by_return(gamma=0.9), rd.count_bonus())]
)
def test_frozen_scores_every_step_with_the_given_running_state(build):
    reward = build()
    params, state = start(reward)
    _, state = reward.unroll(params, state, ROLLOUT)
    output, after = rd.freeze_running(reward).unroll(params, state, ROLLOUT)
    np.testing.assert_allclose(output.reward, frozen_by_hand(reward, params, state, ROLLOUT), rtol=1e-4, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, after.running, state.running)
    drifting, _ = reward.unroll(params, state, ROLLOUT)
    assert np.abs(drifting.reward - output.reward).max() > 1e-3


def test_frozen_reaches_into_trajectory_rewards():
    """In a chain of a normaliser and a trajectory reward the normaliser must not drift within the rollout either."""
    reward = normalised_to_go()
    params, state = start(reward)
    _, state = reward.unroll(params, state, ROLLOUT)
    output, after = rd.freeze_running(reward).unroll(params, state, ROLLOUT)
    normaliser = rd.freeze_running(rd.normalise_by_return(gamma=0.9))
    inner = rd.State(*(part["normalise_by_return"] for part in state))
    scaled, _ = normaliser.unroll(params["normalise_by_return"], inner, ROLLOUT)
    credit = rd.State(*(part["reward_to_go"] for part in state))
    expected, _ = reward_to_go().unroll(
        params["reward_to_go"], credit, ROLLOUT._replace(reward=np.asarray(scaled.reward))
    )
    np.testing.assert_allclose(output.reward, 0.5 * expected.reward, rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, after.running, state.running)


def test_frozen_keeps_names_and_says_so():
    frozen = rd.freeze_running(rd.chain(rd.normalise_by_return(gamma=0.9), rd.clip()))
    assert (
        rd.describe(frozen).splitlines()[1]
        == "├── normalise_by_return (CAUSAL) gamma=0.9, epsilon=1e-08, running=frozen"
    )
    for composed in (rd.delayed(normalised_to_go(), max_length=12), rd.ensemble(normalised_to_go(), 2), mixture()):
        assert [path for path, _ in rd.walk(rd.freeze_running(composed))] == [path for path, _ in rd.walk(composed)]
