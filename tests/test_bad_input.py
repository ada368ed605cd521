"""Bad input, as a user would give it: every refusal is one sentence that says what to do, before anything runs."""

# pyright: reportArgumentType=false, reportOptionalCall=false

import re

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces, wrappers
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorWrapper

import reward_design as rd
from reward_design import agents, cli
from reward_design.agents import dqn, networks, ppo, reinforce, sac, torsos
from reward_design.envs import task, task_from_gymnasium

REWARD, KEY = rd.environment_reward(), jax.random.key(0)
X, THREE = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(3)
SHORT = {"total_timesteps": 32, "num_envs": 2, "num_steps": 8, "hidden": (8,)}
PPO = ppo.Config(**SHORT, num_minibatches=1)
DQN = dqn.Config(**SHORT, learning_starts=8, batch_size=4)
SAC = sac.Config(**SHORT, learning_starts=8, batch_size=4)


class Given(gymnasium.Env):
    """The spaces it is given; its observations pass through ``change(obs, time)``."""

    def __init__(self, obs=X, action=THREE, change=lambda obs, time: obs, render_mode=None):
        self.observation_space, self.action_space, self.change = obs, action, change

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.change(self.observation_space.sample(), 0), {}

    def step(self, action):
        self.time += 1
        return self.change(self.observation_space.sample(), self.time), 0.0, self.time > 4, False, {}


def vector(*args, wrap=lambda env: env, mode=AutoresetMode.SAME_STEP, **kwargs):
    return SyncVectorEnv([lambda: wrap(Given(*args, **kwargs))] * 2, autoreset_mode=mode)


@pytest.fixture
def one_device(monkeypatch):
    """JAX runs already."""
    monkeypatch.setattr(agents, "use_all_cores", lambda: 1)


@pytest.fixture
def registered():
    def register(name, *args, **kwargs):
        gymnasium.register(name, lambda render_mode=None: Given(*args, **kwargs), max_episode_steps=20)
        ids.append(name)
        return f"gymnasium/{name}"

    ids = []
    yield register
    for name in ids:
        del gymnasium.registry[name]


# --- observations ---------------------------------------------------------------------------------------------------

PAIR = spaces.Dict(x=X, y=X)
LACKS_Y = r"the observation lacks 'y', which its observation_space has; it has 'x': return it in reset and step"


class Lacking(VectorWrapper):
    """A vector environment that drops a key."""

    def reset(self, **kwargs):
        obs, info = self.env.reset(**kwargs)
        return {"x": obs["x"]}, info

    def step(self, actions):
        obs, *rest = self.env.step(actions)
        return {"x": obs["x"]}, *rest


@pytest.mark.parametrize(
    ("envs", "message"),
    [
        (lambda: vector(PAIR, change=lambda obs, time: {"x": obs["x"]}), LACKS_Y),
        (lambda: vector(PAIR, change=lambda obs, time: obs if time == 0 else {"x": obs["x"]}), LACKS_Y),
        (lambda: Lacking(vector(PAIR)), LACKS_Y),
        (lambda: vector(change=lambda obs, time: np.zeros(4, np.float32)), r"must have shape \(3,\), got \(4,\)"),
    ],
    ids=["reset", "step", "vector", "shape"],
)
def test_an_observation_outside_its_space_is_named(envs, message):
    for agent, config in ((ppo, PPO), (dqn, DQN)):
        with pytest.raises(ValueError, match=message):
            agent.train_host(config, envs(), REWARD, KEY)


def test_errors_of_an_environment_are_its_own():
    def broken(obs, time):
        if time == 2:
            raise KeyError("my own")
        return obs

    with pytest.raises(KeyError, match="my own"):
        ppo.train_host(PPO, vector(change=broken), REWARD, KEY)
    assert ppo.train_host(PPO, vector(PAIR), REWARD, KEY).metrics["length"][-1] == 5


def test_the_networks_name_an_entry_that_is_not_there():
    for read in (networks.features, torsos.prepare):
        with pytest.raises(ValueError, match="the observation lacks 'y', which its observation_space has; it has x:"):
            read(PAIR, {"x": jnp.zeros((1, 3))})


def test_a_missing_key_is_named_on_the_command_line_also_for_stable_baselines3(registered, capsys, one_device):
    name = registered("Lacks-v0", PAIR, change=lambda obs, time: {"x": obs["x"]})
    for words in (["ppo"], ["sb3/ppo", "--set", "n_steps=16", "batch_size=16"]):
        assert cli.main(["train", "--task", name, "--total-timesteps", "2048", "--agent", *words]) == 2
        error = capsys.readouterr().err
        assert re.search(rf"error: '{name}': {LACKS_Y}", error), error


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (rd.pointwise("mine", lambda t: t.next_obs["goal"][..., 0]), r"'mine' reads 'goal', .* \(it has x, y\)"),
        (rd.pointwise("mine", lambda t: t.info["speed"]), "'mine' reads 'speed', .* no entry of the info"),
        (rd.potential_shaping(lambda obs: obs["goal"].sum(-1), gamma=0.99), "'potential_shaping' reads 'goal'"),
    ],
)
def test_a_reward_that_reads_what_is_not_there_is_refused_by_every_way_to_train(reward, message):
    for agent, config in ((ppo, PPO), (dqn, DQN)):
        with pytest.raises(ValueError, match=message):
            agent.train_host(config, vector(PAIR), reward, KEY)
        with pytest.raises(ValueError, match=r"reads '(goal|speed)'"):
            agent.train(config, task("chain"), reward, KEY)


def test_functions_of_a_task_that_read_what_is_not_there_are_refused_when_it_is_made():
    text = "of task 'gymnasium/CartPole-v1' reads 'goal' by its name from an array"
    with pytest.raises(ValueError, match=f"'potential' {text}"):
        task_from_gymnasium("CartPole-v1", potential=lambda obs: obs["goal"])
    with pytest.raises(ValueError, match=f"'success' {text}"):
        task_from_gymnasium("CartPole-v1", success=lambda t: t.obs["goal"] > 0)
    with pytest.raises(ValueError, match=r"'success' of task .* reads 'won', which is no entry"):
        task_from_gymnasium("Taxi-v3", success=lambda t: t.info["won"], info={"prob": ((), float)})
    assert task_from_gymnasium("CartPole-v1", potential=lambda obs: obs[..., 0]).potential(jnp.ones((2, 4))).sum() == 2


# --- actions --------------------------------------------------------------------------------------------------------

UNBOUNDED, HALF = spaces.Box(-np.inf, np.inf, (2,), np.float32), spaces.Box(0, np.inf, (2,), np.float32)
WHOLE, BOX, MULTI = spaces.Box(0, 5, (2,), np.int32), spaces.Box(-1, 1, (2,), np.float32), spaces.MultiDiscrete([2, 3])
DICT, TUPLE = spaces.Dict(a=spaces.Discrete(2)), spaces.Tuple((spaces.Discrete(2),))
WRAP, BOUND = (
    "make one of them in a gymnasium.ActionWrapper",
    r"TransformAction\(env, lambda action: action, Box\(-1, 1,",
)


@pytest.mark.parametrize(
    ("agent", "config", "space", "message"),
    [
        (ppo, PPO, DICT, rf"ppo needs Discrete or Box actions, got Dict\('a': Discrete\(2\)\); {WRAP}"),
        (ppo, PPO, TUPLE, rf"ppo needs Discrete or Box actions, got Tuple\(Discrete\(2\)\); {WRAP}"),
        (ppo, PPO, MULTI, r"ppo needs Discrete or Box actions, got MultiDiscrete\(\[2 3\]\); use sb3/ppo"),
        (
            ppo,
            PPO,
            WHOLE,
            r"ppo needs Box actions of floating-point numbers, got Box\(0, 5, \(2,\), int32\); round them",
        ),
        (dqn, DQN, UNBOUNDED, r"dqn needs Discrete actions, got Box\(-inf, inf, .*; use ppo or sac"),
        (dqn, DQN, BOX, r"dqn needs Discrete actions, got Box\(-1\.0, 1\.0, .*; use ppo or sac"),
        (dqn, DQN, DICT, rf"dqn needs Discrete actions, got Dict.*; {WRAP}"),
        (dqn, DQN, TUPLE, rf"dqn needs Discrete actions, got Tuple.*; {WRAP}"),
        (
            sac,
            SAC,
            UNBOUNDED,
            rf"sac needs Box actions with finite bounds, got Box\(-inf.*{BOUND} \(2,\)\)\), or use ppo",
        ),
        (sac, SAC, HALF, r"sac needs Box actions with finite bounds, got Box\(0\.0, inf"),
        (sac, SAC, spaces.Discrete(3), r"sac needs Box actions, got Discrete\(3\); use ppo or dqn"),
        (sac, SAC, DICT, rf"sac needs Box actions, got Dict.*; {WRAP}"),
        (sac, SAC, WHOLE, "sac needs Box actions of floating-point numbers"),
    ],
)
def test_actions_that_an_agent_cannot_take_are_refused(agent, config, space, message):
    with pytest.raises(TypeError, match=message):
        agent.train_host(config, vector(action=space), REWARD, KEY)


def test_ppo_takes_actions_without_bounds_and_reinforce_names_itself():
    assert np.isfinite(ppo.train_host(PPO, vector(action=UNBOUNDED), REWARD, KEY).metrics["policy_loss"]).all()
    dictionary = task("cartpole").env.__class__()
    dictionary.action_space = DICT
    with pytest.raises(TypeError, match="reinforce needs Discrete or Box actions, got Dict"):
        reinforce.AGENT.check(dictionary)


def test_the_advice_for_actions_without_bounds_works():
    bounded = wrappers.TransformAction(Given(action=UNBOUNDED), lambda action: action, spaces.Box(-1, 1, (2,)))
    envs = SyncVectorEnv([lambda: bounded] * 1, autoreset_mode=AutoresetMode.SAME_STEP)
    assert sac.train_host(SAC, envs, REWARD, KEY).metrics["length"][-1] == 5


@pytest.mark.parametrize(
    ("agent", "space", "message"),
    [
        ("ppo", UNBOUNDED, rf"'sb3/ppo' needs bounded actions, .*{BOUND} \(2,\)"),
        ("ppo", DICT, rf"'sb3/ppo' needs Box or Discrete or MultiDiscrete or MultiBinary actions, .*; {WRAP}"),
        ("dqn", BOX, r"'sb3/dqn' needs Discrete actions, .* has Box.*; use sb3/ppo or sb3/sac"),
        ("dqn", TUPLE, rf"'sb3/dqn' needs Discrete actions, .* has Tuple.*; {WRAP}"),
        ("sac", UNBOUNDED, rf"'sb3/sac' needs bounded actions, .*{BOUND} \(2,\)"),
        ("sac", spaces.Discrete(3), r"'sb3/sac' needs Box actions, .* has Discrete\(3\).*; use sb3/ppo or sb3/dqn"),
    ],
)
def test_stable_baselines3_refuses_actions_in_one_sentence(agent, space, message, registered):
    pytest.importorskip("stable_baselines3")
    from reward_design.agents import sb3

    made = task(registered(f"Actions{abs(hash((agent, message)))}-v0", action=space))
    learner = sb3.agent(f"sb3/{agent}")
    with pytest.raises(ValueError, match=message):
        learner.check(learner.Config(), made, REWARD)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "pendulum", "--agent", "dqn"], "dqn needs Discrete actions, got Box"),
        (["--task", "chain", "--agent", "sac"], r"sac needs Box actions, got Discrete\(2\); use ppo or dqn"),
        (["--task", "pendulum", "--agent", "q_learning"], "q_learning needs Discrete observations"),
        (["--task", "gymnasium/CartPole-v1", "--agent", "reinforce"], "runs on the device only"),
    ],
)
def test_the_command_line_refuses_before_anything_runs(words, message, tmp_path, capsys, one_device):
    for command in ("train", "compare"):
        assert cli.main([command, *words, "--out", str(tmp_path / command)]) == 2
        error = capsys.readouterr()
        assert re.fullmatch(rf"error: .*{message}.*\n", error.err), error.err
        assert error.out == ""
        assert not (tmp_path / command).exists()


# --- wrappers that train_host takes; tests/test_wrapper_order.py has those that it refuses ----------------------------


def test_wrappers_that_give_right_numbers_are_not():
    for envs in (
        wrappers.vector.NormalizeObservation(vector(mode=AutoresetMode.NEXT_STEP)),
        vector(wrap=wrappers.NormalizeObservation),
    ):
        assert np.isfinite(ppo.train_host(PPO, envs, REWARD, KEY).metrics["value_loss"]).all()
