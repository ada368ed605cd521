"""Episodes of policies by ``evaluate``: what is counted, and the errors of what cannot be played."""

import gymnasium
import jax
import numpy as np
import pytest
from rich.console import Console

import reward_design as rd
from reward_design.agents import Policy, agent, base, ppo
from reward_design.envs import task, task_from_gymnasium
from reward_design.experiments import Evaluation, evaluate, play
from reward_design.experiments.evaluation import play_lanes
from tests.agent_envs import Endless


def right(obs):
    return np.ones(len(obs), int)


def test_returns_of_known_episodes():
    """Right along the corridor of 20 cells: 19 steps, 1 at the end, and the shaping of each step by its formula."""
    chain = task("chain")
    played = evaluate(right, task=chain, reward="shaping", episodes=3)
    phi = np.array([float(chain.potential(np.int32(s))) for s in range(20)])
    phi[19] = 0.0  # terminal
    shaping = sum(chain.gamma * phi[s + 1] - phi[s] for s in range(19))
    assert played.shaped_return is not None
    np.testing.assert_allclose(played.shaped_return, 1 + shaping, rtol=1e-5)
    assert played.true_return.tolist() == [1.0] * 3
    assert played.length.tolist() == [19.0] * 3
    assert played.success.tolist() == [1.0] * 3


def test_a_time_limit_ends_an_episode_without_success():
    played = evaluate(lambda obs: 0 * right(obs), task="chain", episodes=2)
    assert played.length.tolist() == [100.0] * 2
    assert played.success.tolist() == [0.0] * 2
    assert played.shaped_return is None
    with pytest.raises(ValueError, match="there is no shaped_return: no reward was given"):
        played.estimate("shaped_return")


@pytest.mark.parametrize("name", ["cartpole", "gymnasium/CartPole-v1"])
def test_evaluation_equals_a_loop_written_by_hand(name):
    """Each lane stops at its own end; the reward counts the angle, and only within the episode."""
    tilt = rd.pointwise("tilt", lambda t: 1.0 - t.next_obs[..., 2] ** 2)

    def act(obs):
        return (obs[:, 2] + 0.3 * obs[:, 0] > 0).astype(int)

    rows = play_lanes(task(name).env, act, 3, 7)
    played = evaluate(act, task=name, reward=tilt, episodes=3, seed=7)
    for lane in range(3):
        length, paid = 0, 0.0
        for t in range(len(rows.reward)):
            assert rows.mask[t, lane]
            length, paid = length + 1, paid + 1.0 - float(rows.next_obs[t, lane, 2]) ** 2
            assert (rows.info["next_action"][t, lane] == act(rows.next_obs[t])[lane]).all()
            if rows.terminated[t, lane] or rows.truncated[t, lane]:
                break
            np.testing.assert_array_equal(rows.obs[t + 1, lane], rows.next_obs[t, lane])
        assert not rows.mask[t + 1 :, lane].any()
        assert abs(rows.next_obs[t, lane, 2]) > 0.209 or abs(rows.next_obs[t, lane, 0]) > 2.4
        assert played.length[lane] == length == played.true_return[lane]
        np.testing.assert_allclose(played.shaped_return[lane], paid, rtol=1e-5)
    assert len(set(played.length)) > 1


def test_evaluation_agrees_with_that_of_the_agents():
    chain, config = task("chain"), ppo.Config(total_timesteps=256, num_envs=4, num_steps=32, hidden=(8,))
    result = ppo.train(config, chain, chain.dense_reward, jax.random.key(0))
    inside = base.evaluate(agent("ppo"), config, chain, result.state, jax.random.key(0), num_episodes=2)
    played = evaluate(Policy(agent("ppo"), config, chain.env, result.state, task=chain), episodes=2)
    for name in ("true_return", "success", "length"):
        np.testing.assert_array_equal(getattr(played, name), inside[name])


def test_rewards_of_whole_episodes_and_with_memory():
    whole = rd.from_trajectory("length", lambda key, example: ((), ()), _length_at_the_end)
    assert evaluate(right, task="chain", reward=whole, episodes=2).shaped_return.tolist() == [19.0, 19.0]
    bonus = evaluate(right, task="chain", reward=rd.count_bonus(scale=1.0), episodes=2).shaped_return
    assert bonus[0] == bonus[1]  # counts are held fixed


def _length_at_the_end(params, state, t):
    mask = t.mask.astype(float)
    return (mask * 1.0), state


def test_more_episodes_than_lanes_and_seeds(monkeypatch):
    monkeypatch.setattr("reward_design.experiments.evaluation.MAX_LANES", 2)
    first, again = (evaluate(_push_left, task="cartpole", episodes=5, seed=4).length for _ in range(2))
    assert first.shape == (5,)
    np.testing.assert_array_equal(first, again)
    assert (first != evaluate(_push_left, task="cartpole", episodes=5, seed=5).length).any()
    with pytest.raises(ValueError, match="episodes must be at least 1, got 0"):
        evaluate(right, task="chain", episodes=0)
    with pytest.raises(ValueError, match="seed must be a whole number from 0 to 4294967295, got -1"):
        evaluate(right, task="chain", seed=-1)
    with pytest.raises(ValueError, match=r"does not know its task; give it: evaluate\(policy, task"):
        evaluate(right)


def _push_left(obs):
    return 0 * right(obs)


def test_estimates_have_intervals():
    played = Evaluation(np.arange(20.0), None, np.repeat([0.0, 1.0], 10), np.full(20, 7.0))
    value, low, high = played.estimate("true_return")
    assert low < value == 9.5 < high
    assert played.estimate("success").value == 0.5
    assert played.estimate("length") == (7.0, 7.0, 7.0)


def test_a_task_without_a_time_limit_is_cut(monkeypatch):
    for module in ("evaluation", "playing"):
        monkeypatch.setattr(f"reward_design.experiments.{module}.MAX_STEPS", 20)
    gymnasium.register("EndlessEvaluation-v0", entry_point=lambda **_: Endless())
    endless = task_from_gymnasium("EndlessEvaluation-v0")
    assert endless.horizon == 0
    assert evaluate(right, task=endless, episodes=2).length.tolist() == [20.0, 20.0]
    assert play(task=endless, episodes=1, console=Console(quiet=True)).length.tolist() == [20.0]
