"""BARFI with an actor-critic as inner learner: its advantages against plain sums, and that both levels learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reward_design as rd
from reward_design.agents.actor_critic import ActorCritic
from reward_design.bilevel import BarfiConfig, alignment_reward, barfi, segments
from reward_design.core import Transition
from reward_design.envs import task

GAMMA, LAMBDA = 0.9, 0.7
SMALL = {"learner": "ppo", "num_envs": 2, "horizon": 200, "hidden": (8,), "inner_steps": 2, "num_minibatches": 2,
         "warm_start": 1}  # fmt: skip


def settings(num_updates: int = 4, **changes) -> BarfiConfig:
    return BarfiConfig(**{**SMALL, **changes, "total_timesteps": num_updates * 400})


def rollouts() -> segments.Segments:
    """Pendulum rollouts ``[3, 12]`` with ends of both kinds, tails, and rows of resets."""
    rng = np.random.default_rng(4)
    example = task("pendulum").example
    draw = lambda x: rng.normal(size=(12, 3, *np.shape(x)[1:])).astype(np.asarray(x).dtype)  # noqa: E731
    trajectory: Transition = jax.tree.map(draw, example)
    ends = rng.random((12, 3)) < 0.3
    terminated = ends & (rng.random((12, 3)) < 0.5)
    mask = np.ones((12, 3), bool)
    mask[1:] = ~ends[:-1] | (rng.random((11, 3)) < 0.5)  # a row that a reset takes follows an end
    ends &= mask
    terminated &= mask
    trajectory = trajectory._replace(terminated=terminated, truncated=ends & ~terminated, mask=mask)
    return segments.segments(jax.tree.map(jnp.asarray, trajectory), jnp.asarray(draw(np.zeros((1, 1), np.float32))))


def test_surrogate_with_a_critic_is_the_sum_of_generalised_advantages():
    network = ActorCritic(task("pendulum").env, (8,), False)
    params, moments = network.init(jax.random.key(0))
    batch, paid = rollouts(), np.random.default_rng(1).normal(size=(12, 3)).astype(np.float32)
    got, _ = segments.objective(
        network, {k: params[k] for k in ("actor", "log_std")}, moments, batch, jnp.asarray(paid),
        gamma=GAMMA, baseline=True, entropy_coef=0.0, critic=params["critic"], gae_lambda=LAMBDA,
    )  # fmt: skip
    value = lambda obs: float(network.value(params, network.inputs(moments, obs[None]))[0])  # noqa: E731
    rows = batch.transition
    total, count = 0.0, 0
    for lane in range(3):
        real = np.flatnonzero(rows.mask[lane])
        for t in real:
            advantage, weight = 0.0, 1.0
            for j in real[real >= t]:
                follow = 0.0 if rows.terminated[lane, j] else value(rows.next_obs[lane, j])
                advantage += weight * (paid[j, lane] + GAMMA * follow - value(rows.obs[lane, j]))
                weight *= GAMMA * LAMBDA
                if rows.done[lane, j]:
                    break
            x = network.inputs(moments, rows.obs[lane, t][None])
            mean, deviation = np.asarray(network.head(params, x))[0], np.exp(np.asarray(params["log_std"]))
            z = (np.asarray(batch.raw[lane, t]) - mean) / deviation
            total += advantage * float(np.sum(-0.5 * z**2 - np.log(deviation) - 0.5 * np.log(2 * np.pi)))
            count += 1
    assert float(got) == pytest.approx(total / count, rel=1e-4)


def test_phi_and_both_critics_learn_on_a_continuous_task():
    pendulum = task("pendulum")
    reward = alignment_reward(rd.environment_reward(), next(iter(pendulum.auxiliary.values())))
    result = barfi(settings(4), pendulum, reward, jax.random.key(0))
    start = barfi(settings(1), pendulum, reward, jax.random.key(0)).state
    assert result.metrics["phi3"][0] == 1.0
    assert abs(float(result.metrics["phi3"][-1]) - 1.0) > 1e-3
    moved = lambda a, b: max(float(jnp.abs(x - y).max()) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))  # noqa: E731
    assert moved(start.critic.params, result.state.critic.params) > 1e-3
    assert moved(start.params["critic"], result.state.params["critic"]) > 1e-3
    assert np.isfinite(result.metrics["value_loss"]).all()


def test_matched_baseline_has_no_second_critic_to_learn():
    result = barfi(settings(2, outer="none"), task("pendulum"), rd.environment_reward(), jax.random.key(0))
    assert "phi3" not in result.metrics


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"replay": 8}, "learner='ppo' learns from the newest rollouts alone: set replay to 0, got 8"),
        ({"outer": "imgl"}, "outer='imgl' accumulates steps of plain ascent, which learner='ppo' does not take"),
        ({"num_minibatches": 7}, r"num_minibatches must divide num_envs \* num_steps = 400, got 7"),
        ({"learner": "sac"}, "learner must be .*reinforce.* got .sac."),
    ],
)
def test_settings_that_do_not_go_together_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        settings(**change)
