"""Environments in worker processes: equal to gymnasium's own, and workers that die, raise or hang are replaced."""

import copy
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TransformObservation

import reward_design as rd
from reward_design.adapters.gymnasium import VectorRewardWrapper
from reward_design.agents import ppo
from reward_design.envs.process_vector import ProcessVectorEnv
from tests.process_envs import DIE, HANG, RAISE, Broken, BrokenReset, Count, Half, Tree

INFO = {"time": ((), np.int64)}
SPACES = {"observation_space": Count.observation_space, "action_space": Count.action_space}


@pytest.fixture
def vector():
    made = []

    def make(kind=Count, lanes=4, **settings):
        made.append(ProcessVectorEnv(kind, lanes, **{"num_workers": 2, "timeout": 20.0, "info": INFO, **settings}))
        return made[-1]

    yield make
    for envs in made:
        envs.close()


def alive(pid):
    """Whether the process runs or is a zombie."""
    return pathlib.Path(f"/proc/{pid}").exists()


def copied(env):
    return TransformObservation(env, copy.deepcopy, env.observation_space)


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("kind", [Count, Tree])
def test_equal_to_gymnasiums_own_vector_environment(vector, kind):
    ours = vector(kind, lanes=3)  # gymnasium's gives the next episode's first observation for final_obs, if not copied
    theirs = SyncVectorEnv([lambda: copied(kind())] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert_same(ours.reset(seed=7)[0], theirs.reset(seed=7)[0])
    theirs.action_space.seed(0)
    kept = []
    for _ in range(30):
        actions = theirs.action_space.sample()
        if kind is Count:
            actions %= 2
        *our_step, infos = ours.step(actions)
        *their_step, expected = theirs.step(actions)
        assert_same(our_step[0], their_step[0])
        for mine, other in zip(our_step[1:], their_step[1:], strict=True):
            np.testing.assert_array_equal(mine, other)
        ended = our_step[2] | our_step[3]
        assert not infos["worker_fault"].any()
        assert ("final_obs" in infos) == ended.any()
        for lane in np.flatnonzero(ended):
            assert_same(jax.tree.map(lambda part, i=lane: part[i], infos["final_obs"]), expected["final_obs"][lane])
            assert infos["time"][lane] == expected["final_info"]["time"][lane]
        np.testing.assert_array_equal(infos["time"][~ended], expected.get("time", infos["time"])[~ended])
        kept.append((our_step[0], jax.tree.map(np.copy, our_step[0])))
    for returned, expected in kept:
        assert_same(returned, expected)


def test_one_seed_fixes_everything_that_follows(vector):
    def run(envs, **seed):
        first = [envs.reset(**seed)[0]] + [envs.step(np.ones(4, int))[0] for _ in range(12)]
        return np.stack([*first, envs.reset()[0]])

    one, two = vector(seed=3), vector(num_workers=3)
    expected = run(one)
    np.testing.assert_array_equal(expected, run(two, seed=3))
    np.testing.assert_array_equal(expected, run(one, seed=[3, 4, 5, 6]))
    assert not np.array_equal(expected, run(two, seed=2))
    assert len(np.unique(expected[0, :, 2])) == 4


@pytest.mark.parametrize(
    ("action", "cause"),
    [
        (DIE, "died with exit code -9"),
        (RAISE, "raised ZeroDivisionError in lane 2: the reactor is on fire"),
        (HANG, "did not answer in time"),
    ],
)
def test_a_worker_with_a_fault_is_replaced_and_the_others_go_on(vector, action, cause):
    envs = vector(timeout=2.0)
    envs.reset(seed=0)
    for _ in range(3):
        before, *_ = envs.step(np.zeros(4, int))
    old = envs.pids
    with pytest.warns(RuntimeWarning, match=re.escape(f"the worker of lanes 2 to 3 {cause}")):
        obs, reward, terminated, truncated, infos = envs.step(np.array([1, 1, action, 1]))
    assert infos["worker_fault"].tolist() == truncated.tolist() == [False, False, True, True]
    assert not terminated.any()
    assert reward.tolist() == [4, 4, 0, 0]
    assert obs[:, 0].tolist() == [4, 4, 0, 0]
    assert infos["time"].tolist() == [4, 4, 0, 0]
    np.testing.assert_array_equal(infos["final_obs"][2:], before[2:])
    np.testing.assert_array_equal(obs[:2, 2], before[:2, 2])
    assert envs.num_faults == 1
    assert envs.pids[0] == old[0]
    assert not alive(old[1])
    obs, *_, infos = envs.step(np.ones(4, int))
    assert infos["final_obs"][:2, 0].tolist() == [5, 5]
    assert obs[:, 0].tolist() == [0, 0, 1, 1]
    assert not infos["worker_fault"].any()


def test_training_survives_the_death_of_a_worker(vector):
    envs = vector(info=None)
    config = ppo.Config(total_timesteps=512, num_envs=4, num_steps=16, num_minibatches=2, hidden=(8,))
    reward = rd.pointwise("mild", lambda p, t: t.reward)
    envs.single_action_space = spaces.Discrete(2)
    steps, step = [], envs.step

    def fatal(actions):
        steps.append(1)
        if len(steps) == 40:
            os.kill(envs.pids[0], signal.SIGKILL)
        return step(actions)

    envs.step = fatal
    with pytest.warns(RuntimeWarning, match="died with exit code -9"):
        result = ppo.train_host(config, envs, reward, jax.random.key(0))
    assert len(steps) == 128
    assert envs.num_faults == 1
    assert result.metrics["faults"][-1] == 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.state.params))


def test_endless_faults_stop_with_the_cause(vector):
    envs = vector(max_faults=2)
    envs.reset(seed=0)
    fatal = np.array([1, 1, 1, RAISE])
    for _ in range(2):  # a good step in between starts the count again
        with pytest.warns(RuntimeWarning, match="on fire"):
            envs.step(fatal)
        envs.step(np.zeros(4, int))
    with pytest.warns(RuntimeWarning, match="on fire"):
        envs.step(fatal)
    pids = envs.pids
    with pytest.raises(RuntimeError, match=r"lanes 2 to 3 failed 2 times in a row; the last time it raised ZeroDiv"):
        envs.step(fatal)
    assert not any(map(alive, pids))


def test_an_observation_that_lacks_an_entry_is_named(vector):
    with pytest.raises(RuntimeError, match=r"it raised ValueError in lane 0: 'Half': the observation lacks 'a', which"):
        vector(Half, observation_space=Half.observation_space, action_space=Half.action_space, info={}).reset()


@pytest.mark.parametrize("spaces_known", [False, True])
def test_an_environment_that_cannot_be_made_is_an_error_at_once(vector, spaces_known):
    with pytest.raises((RuntimeError, OSError), match="no reactor found"):
        vector(Broken, **(SPACES if spaces_known else {}))


def test_an_environment_that_cannot_be_reset_is_an_error_at_once(vector):
    envs = vector(BrokenReset)
    pids = envs.pids
    with pytest.raises(RuntimeError, match=r"could not reset its environments: it raised OSError in lane 0: the react"):
        envs.reset()
    assert not any(map(alive, pids))


def test_faults_between_and_during_resets(vector):
    envs = vector()
    envs.reset(seed=0)
    os.kill(envs.pids[1], signal.SIGKILL)
    time.sleep(0.2)
    with pytest.warns(RuntimeWarning, match="lanes 2 to 3 ended between steps"):
        envs.reset(seed=0)
    assert envs.num_faults == 1
    with pytest.raises(
        RuntimeError, match="could not reset its environments again: it raised ValueError in lane 0: no"
    ):
        envs.reset(options={"text": "not today"})


def test_close_leaves_nothing_behind(vector):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    def shared():
        return {name for name in os.listdir("/dev/shm") if str(os.getpid()) in name}

    vector().close()  # what multiprocessing keeps for good
    before, known = descriptors(), shared()
    for _ in range(2):
        envs = vector()
        envs.reset(seed=0)
        envs.step(np.zeros(4, int))
        pids = envs.pids
        assert all(map(alive, pids))
        envs.close()
        envs.close()
        assert not any(map(alive, pids))
    assert descriptors() == before
    assert shared() <= known
    with pytest.raises(gymnasium.error.ClosedEnvironmentError, match="closed"):
        envs.step(np.zeros(4, int))


def test_an_interrupted_step_can_be_followed_by_a_reset_or_by_close(vector):
    envs = vector()
    envs.reset(seed=0)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    with pytest.raises(KeyboardInterrupt):
        envs.step(np.array([0, 0, 0, HANG]))
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\)"):
        envs.step(np.zeros(4, int))
    envs.timeout = 0.5
    with pytest.warns(RuntimeWarning, match="lanes 2 to 3 ended between steps"):
        obs, _ = envs.reset(seed=0)
    np.testing.assert_array_equal(obs, vector().reset(seed=0)[0])
    envs.step(np.zeros(4, int))


SCRIPT = """
import gymnasium, numpy, signal
from reward_design.envs.process_vector import ProcessVectorEnv

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background of a script starts without
    envs = ProcessVectorEnv(lambda: gymnasium.make("CartPole-v1"), 4, num_workers=2)
    envs.reset(seed=0)
    print(*envs.pids, flush=True)
    while True:
        envs.step(numpy.ones(4, int))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_parent(tmp_path, how):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    pids = parent.stdout.readline().split()
    assert len(pids) == 2, parent.communicate()
    parent.send_signal(how)
    try:
        _, errors = parent.communicate(timeout=60)
    finally:
        parent.kill()
    deadline = time.monotonic() + 30
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, pids))
    assert not [name for name in os.listdir("/dev/shm") if str(parent.pid) in name]
    assert errors.count("Traceback") == (how == signal.SIGINT)


def test_works_below_a_reward_wrapper(vector):
    reward = rd.pointwise("twice", lambda p, t: p * t.reward + t.info["time"], params=2.0)
    envs = VectorRewardWrapper(vector(info={"time": ((), np.float32)}), reward, info_keys=["time"])
    envs.reset(seed=0)
    for step in range(1, 7):
        _, rewards, *_, infos = envs.step(np.zeros(4, int))
        assert infos["env_reward"].tolist() == [(step - 1) % 5 + 1] * 4
        np.testing.assert_allclose(rewards, 3 * infos["env_reward"])


def test_bad_input_is_refused_with_one_sentence(vector):
    cases = [
        ({"lanes": 0}, r"num_envs must be at least 1, got 0"),
        ({"num_workers": 5}, r"num_workers must be between 1 and num_envs = 4, got 5"),
        ({"timeout": 0.0}, r"timeout and start_timeout must be positive, got 0.0"),
        ({"max_faults": 0}, r"max_faults must be at least 1, got 0"),
        ({"context": "fork"}, r"context must be 'spawn' or 'forkserver', got 'fork'; JAX does not survive a fork"),
    ]
    for settings, text in cases:
        with pytest.raises(ValueError, match=text):
            vector(**settings)
    envs = vector(lanes=2, num_workers=1, info={"speed": ((), float)})
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\)"):
        envs.step(np.zeros(2, int))
    with pytest.raises(ValueError, match=r"one seed per lane \(2\), got 3"):
        envs.reset(seed=[1, 2, 3])
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=r"actions must have the shape \(2,\), got \(3,\)"):
        envs.step(np.zeros(3, int))
    envs.max_faults = 1
    with pytest.raises(RuntimeError, match=r"every step must give the info entry 'speed', got \['time'\]"):
        envs.step(np.zeros(2, int))
