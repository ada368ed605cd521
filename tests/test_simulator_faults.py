"""Environments that give NaN, and workers that are lost: what is learned from, counted and told."""

import copy

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import reward_design as rd
from reward_design.agents import agent as find_agent
from reward_design.agents import dqn, ppo, rollout, sb3
from reward_design.agents.collector import Collector
from reward_design.agents.host import evaluate_host
from reward_design.core import Output
from reward_design.envs import task, task_from_gymnasium
from reward_design.envs.host import SpacesOnly
from reward_design.envs.simulator_fault import SimulatorFault
from reward_design.experiments import budgets, merging, single, units

KINDS = ("sync", "process", "async")


class Ten(gymnasium.Env):
    """Ten steps of reward 1; the observation of step ``bad`` is NaN, or the reward of step ``bad_reward``.

    It takes no ``render_mode``, and writes every observation into the same array.
    """

    observation_space = spaces.Box(-2, 2, (2,))
    action_space = spaces.Discrete(2)

    def __init__(self, bad=0, bad_reward=0):
        self.bad, self.bad_reward, self.obs = bad, bad_reward, np.zeros(2, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        self.obs[:] = 0
        return self.obs, {}

    def step(self, action):
        self.time += 1
        self.obs[:] = self.time / 10, np.nan if self.time == self.bad else action
        return self.obs, np.nan if self.time == self.bad_reward else 1.0, self.time >= 10, False, {"time": self.time}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """In this process only."""
    monkeypatch.setattr(gymnasium.envs.registration, "registry", {**gymnasium.registry})
    monkeypatch.setattr(gymnasium, "registry", gymnasium.envs.registration.registry)
    gymnasium.register("Ten-v0", Ten)  # pyright: ignore[reportArgumentType]


def ten(**settings):
    return task_from_gymnasium("Ten-v0", info={"time": ((), np.int32)}, **settings)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["bad", "bad_reward"])
def test_a_nan_ends_the_episode_and_is_counted(kind, what):
    known = ten(vectorisation=kind, **{what: 5})
    config = ppo.Config(total_timesteps=60, num_envs=2, num_steps=15, num_minibatches=2, hidden=(8,))
    envs = known.vector(2)
    try:
        result = ppo.train_host(config, envs, rd.environment_reward(), jax.random.key(0))
    finally:
        envs.close()
    assert result.metrics["faults"].tolist() == [6, 12]
    assert result.metrics["length"].tolist() == [5, 5]
    assert result.metrics["true_return"].tolist() == [4, 4]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.state.params))


def test_the_step_of_a_fault():
    env = ten(bad=3).make()
    env.reset(seed=0)
    env.step(1)
    before, *_, info = env.step(0)
    before = before.copy()
    assert info == {"time": 2}
    obs, reward, terminated, truncated, info = env.step(1)
    np.testing.assert_array_equal(obs, before)
    assert (reward, terminated, truncated, info) == (0.0, False, True, {"time": 0, "simulator_fault": True})


def test_mujoco_under_its_own_id_does_not_go_on_after_it_reset_itself():
    env = task("gymnasium/Hopper-v5").make()
    env.reset(seed=0)
    env.unwrapped.data.qpos[3] = np.nan
    *_, terminated, truncated, info = env.step(np.zeros(3, np.float32))
    assert (terminated, truncated, info["simulator_fault"]) == (False, True, True)


@pytest.mark.parametrize("agent", [ppo, dqn])
def test_a_nan_of_somebodys_own_vector_environment_is_an_error(agent):
    envs = gymnasium.make_vec("Ten-v0", num_envs=2, vectorization_mode="sync", bad=5)
    sizes = {"num_minibatches": 2} if agent is ppo else {"learning_starts": 4, "batch_size": 4}
    config = agent.Config(total_timesteps=64, num_envs=2, num_steps=16, hidden=(8,), **sizes)
    words = r"'Ten-v0' gave an observation that is not finite, in lane 0 after 5 steps: end such an episode"
    with pytest.raises(ValueError, match=words):
        agent.train_host(config, envs, rd.environment_reward(), jax.random.key(0))


class Lost(gymnasium.vector.SyncVectorEnv):
    """A worker that is lost at some of the steps, as :class:`ProcessVectorEnv` tells it."""

    def __init__(self, lanes, *, at):
        mode = gymnasium.vector.AutoresetMode.SAME_STEP
        super().__init__([Ten] * lanes, autoreset_mode=mode)
        self.at, self.taken, self.last = at, 0, None

    def reset(self, **kwargs):
        self.last = super().reset(**kwargs)
        return self.last

    def step(self, actions):
        if self.taken in self.at:
            lost = np.arange(self.num_envs) == 0
            final = np.array([*self.last[0]])
            lane = self.envs[0].unwrapped
            obs, reward, terminated, truncated, infos = super().step(actions)
            obs = obs.copy()
            obs[0], _ = lane.reset()
            reward[0], terminated[0], truncated[0] = 0.0, False, True
            infos = {"final_obs": np.where(lost[:, None], final, obs), "_final_obs": lost, "worker_fault": lost}
        else:
            obs, reward, terminated, truncated, infos = super().step(actions)
            infos["worker_fault"] = np.zeros(self.num_envs, bool)
        self.taken += 1
        self.last = (obs, infos)
        return obs, reward, terminated, truncated, infos


def acts(obs, rng):
    return np.ones(len(obs), int), np.zeros(len(obs))


@pytest.mark.parametrize(
    ("at", "ends", "masked"),
    [
        ({3}, [2], [3]),  # in the middle: the row before ends it
        ({3, 4}, [2], [3, 4]),  # the next one is lost before it has begun
        ({0}, [], [0]),  # an episode that has not begun
        ({10}, [9], [10]),  # right after one that ended
    ],
)
def test_what_a_lost_worker_did_not_step_is_no_experience(at, ends, masked):
    envs = Lost(2, at=at)
    collector = Collector(envs, SpacesOnly(envs), 14)
    rows, _ = collector.collect(acts, np.random.default_rng(0))
    assert np.flatnonzero(~rows.mask[:, 0]).tolist() == masked
    ended = (rows.terminated | rows.truncated) & rows.mask
    assert np.flatnonzero(ended[:10, 0]).tolist() == ends
    assert rows.mask[:, 1].all()
    assert np.flatnonzero(ended[:, 1]).tolist() == [9]
    assert collector.faults == len(at)


def test_an_episode_that_is_lost_at_the_start_of_a_rollout_is_cut_there():
    envs = Lost(2, at={4})
    collector = Collector(envs, SpacesOnly(envs), 4)
    collector.collect(acts, np.random.default_rng(0))
    rows, _ = collector.collect(acts, np.random.default_rng(0))
    assert rows.truncated[:, 0].tolist() == [True, False, False, False]
    assert rows.mask.all()
    np.testing.assert_array_equal(rows.next_obs[0, 0], rows.obs[0, 0])


@pytest.mark.parametrize("seed", range(6))
def test_lost_episodes_are_in_no_metric(seed):
    """Against a loop over the steps of every lane."""
    rng = np.random.default_rng(seed)
    time, lanes = 40, 3
    envs = Lost(lanes, at=set(rng.choice(np.arange(1, time), 6, replace=False).tolist()))
    env = SpacesOnly(envs)
    collector = Collector(envs, env, 20)
    state = rollout.reset_lanes(env, None, lanes, ())
    carried, returns = np.zeros(lanes), []
    for _ in range(2):
        rows, _ = collector.collect(acts, rng)
        output = Output(np.where(rows.mask, rows.reward, 0.0), {})
        state, metrics = rollout.episode_metrics(env, state, rows, output)
        found = []
        for lane in range(lanes):
            for t in range(20):
                carried[lane] += rows.mask[t, lane] * rows.reward[t, lane]
                if (rows.terminated | rows.truncated)[t, lane] and rows.mask[t, lane]:
                    lost = t < 19 and rows.truncated[t + 1, lane] and not rows.mask[t + 1, lane]
                    found += [] if lost else [carried[lane]]
                    carried[lane] = 0.0
        returns += found
        assert metrics["episodes"] == len(found)
        if found:
            np.testing.assert_allclose(metrics["true_return"], np.mean(found))
        np.testing.assert_allclose(state.sums["true_return"], carried)
    assert len(returns) >= 8


def test_an_evaluation_does_not_count_lost_episodes():
    config = ppo.Config(total_timesteps=64, num_envs=2, num_steps=8, num_minibatches=1, hidden=(8,))
    envs = Lost(2, at=())
    result = ppo.train_host(config, envs, rd.environment_reward(), jax.random.key(0))
    envs.taken, envs.at = 0, {3, 13, 25}
    played = evaluate_host(ppo.AGENT, config, envs, result.state, num_episodes=6)
    assert played["true_return"].tolist() == [10] * 6
    assert played["length"].tolist() == [10] * 6


def test_an_evaluation_that_loses_every_episode_ends():
    config = ppo.Config(total_timesteps=64, num_envs=2, num_steps=8, num_minibatches=1, hidden=(8,))
    envs = Lost(2, at=())
    result = ppo.train_host(config, envs, rd.environment_reward(), jax.random.key(0))
    envs.taken, envs.at = 0, range(5, 10_000, 5)
    with pytest.raises(RuntimeError, match="'Lost': 21 episodes of an evaluation were lost with their workers"):
        evaluate_host(ppo.AGENT, config, envs, result.state, num_episodes=2)


def test_what_is_owed_when_a_worker_is_lost_belongs_to_the_step_before():
    envs = Lost(2, at={4})
    step = envs.step

    def pays_at_the_end(actions):
        obs, _, terminated, truncated, infos = step(actions)
        return obs, np.where(terminated | truncated, 7.0, 0.0), terminated, truncated, infos

    envs.step = pays_at_the_end
    rows, _ = Collector(envs, SpacesOnly(envs), 6).collect(acts, np.random.default_rng(0))
    assert rows.reward[:, 0].tolist() == [0, 0, 0, 7, 7, 0]
    assert rows.mask[:, 0].tolist() == [True] * 4 + [False, True]


def test_a_reset_that_gives_nan_is_an_error():
    class Bad(Ten):
        def reset(self, **kwargs):
            return np.full(2, np.nan, np.float32), super().reset(**kwargs)[1]

    with pytest.raises(ValueError, match="'Bad': the observation of a reset is not finite"):
        SimulatorFault(Bad()).reset(seed=0)
    envs = gymnasium.vector.SyncVectorEnv([Bad] * 2)
    with pytest.raises(ValueError, match="not finite, in lane 0 after 0 steps"):
        Collector(envs, SpacesOnly(envs), 3).collect(acts, np.random.default_rng(0))


def test_arrays_of_other_libraries_are_watched():
    env = task("mujoco/Hopper").make()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="actions must be finite"):
        env.step(jnp.array([jnp.nan, 0.0, 0.0]))
    env.step(jnp.zeros(3))


def test_faults_are_told_and_added_up(capsys):
    known = ten(bad=5)
    agent = ppo.Config(total_timesteps=60, num_envs=2, num_steps=15, num_minibatches=2, hidden=(8,))
    metrics = ppo.train_host(agent, known.vector(2), rd.environment_reward(), jax.random.key(0)).metrics
    of_two = {name: np.stack([values, values]) for name, values in metrics.items()}
    assert units.summary(of_two, 30)["losses"]["faults"].tolist() == [12, 24]
    assert units.line({name: values[None] for name, values in metrics.items()}, 30)["losses"]["faults"] == 12
    record = {
        "fingerprint": "", "config": {}, "seeds": [0], "steps": [60], "curves": {}, "final": {}, "episodes": [1],
        "losses": {"faults": [6.0, 12.0], "loss": [1.0, 2.0]}, "wall_s": 1.0, "compile_s": 1.0, "env_steps": 60,
        "task": "t", "reward": "r",
    }  # fmt: skip
    both = merging._joined(record, record | {"seeds": [1]}, "here")
    assert both["losses"]["faults"].tolist() == [12, 24]
    assert both["losses"]["loss"].tolist() == [1, 2]
    older = record | {"losses": {"loss": [3.0, 4.0]}, "seeds": [2]}
    assert set(merging._joined(record, older, "here")["losses"]) == {"loss"}


def test_training_says_how_many_episodes_were_cut(tmp_path, capsys):
    single.train(
        ten(bad=5), "environment", out=str(tmp_path / "r"), total_timesteps=60,
        config={"num_envs": 2, "num_steps": 15, "num_minibatches": 2, "hidden": (8,)},
    )  # fmt: skip
    assert "note: 12 episodes were cut by a fault of the simulator or a worker" in capsys.readouterr().out


def test_a_copy_of_an_environment_without_mujoco_goes_on():
    env = SimulatorFault(Ten())
    env.reset(seed=0)
    env.step(1)
    copied = copy.deepcopy(env)
    np.testing.assert_array_equal(copied.step(1)[0], env.step(1)[0])


def test_agents_of_stable_baselines3_count_faults():
    known = ten(bad=5)
    learner, few = find_agent("sb3/ppo"), {"num_envs": 2, "n_steps": 16, "batch_size": 16}
    config = budgets.settings(learner, known, total_timesteps=64, config=few)
    metrics = sb3.train(learner, config, known, known.true_reward, 0).metrics
    assert metrics["faults"][-1] == 12
    assert metrics["length"][-1] == 5
