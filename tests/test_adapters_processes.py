"""Rewards in other processes: pickled to them, and in forked ones, where JAX would hang."""

import os
import pathlib
import subprocess
import sys

import pytest

TESTS = pathlib.Path(__file__).parent


def run(tmp_path, text, timeout=120):
    """Output of a script in a process of its own, as functions under the type-checking import hook cannot be pickled.

    Killed when it hangs, which is what the tests are about; the processes that it forked end with it.
    """
    script = tmp_path / "script.py"
    script.write_text(text)
    path = f"{TESTS}{os.pathsep}{TESTS.parent}"
    command = [sys.executable, "-W", "ignore", script]
    env = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


FORKED = """
import faulthandler, os, sys
import gymnasium, numpy as np
from gymnasium.vector import AsyncVectorEnv
import reward_design as rd
from reward_design.adapters.gymnasium import RewardWrapper
from reward_design.envs import task

faulthandler.dump_traceback_later(60, exit=True)
reward = rd.clip()
first = RewardWrapper(gymnasium.make("CartPole-v1"), reward)
first.reset(seed=0)
view = task("cartpole").make()
view.reset(seed=0)


def wrapped():
    return RewardWrapper(gymnasium.make("CartPole-v1"), reward)


def says(envs):
    try:
        envs.reset_async(seed=0)
        envs.reset_wait(timeout=20)
        return "nothing"
    except RuntimeError as error:
        return str(error)
    finally:
        envs.close(terminate=True)


def in_child(act):
    \"\"\"What a forked child says, which the alarm ends if it hangs.\"\"\"
    out, into = os.pipe()
    if not os.fork():
        try:
            act()
            text = "nothing"
        except RuntimeError as error:
            text = str(error)
        os.write(into, text.encode())
        os._exit(0)
    os.close(into)
    with os.fdopen(out) as answer:
        return answer.read()


for make in (wrapped, task("cartpole").make):
    print(says(AsyncVectorEnv([make] * 2, context="fork")))
print(in_child(lambda: first.step(1)))
print(in_child(lambda: view.step(1)))
print(in_child(lambda: print(in_child(lambda: first.step(1)), flush=True)))  # a grandchild, and what its parent does
first.step(1)
view.step(1)
"""

SENTENCE = "this process was forked after JAX had started, where JAX would hang; start the processes with "


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_forked_processes_say_that_jax_would_hang(tmp_path):
    lines = run(tmp_path, FORKED)[0].splitlines()
    assert len(lines) == 6
    assert [line.startswith(SENTENCE) for line in lines] == [True] * 5 + [False]
    assert lines[-1] == "nothing"


EARLY = """
import faulthandler, os
import gymnasium
import reward_design as rd
from reward_design.adapters.gymnasium import RewardWrapper

faulthandler.dump_traceback_later(60, exit=True)
if not os.fork():  # a child that starts JAX itself, as this process does
    first = os.fork()
    env = RewardWrapper(gymnasium.make("CartPole-v1"), rd.clip())
    env.reset(seed=0)
    print(env.step(1)[1], flush=True)
    if first:
        os.waitpid(first, 0)
    os._exit(0)
os.wait()
env = RewardWrapper(gymnasium.make("CartPole-v1"), rd.clip())
env.reset(seed=0)
print(env.step(1)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fork_before_jax_has_started_is_as_good_as_any_process(tmp_path):
    assert run(tmp_path, EARLY)[0].split() == ["1.0"] * 3


SUBPROC = """
import faulthandler, gymnasium, numpy as np
from stable_baselines3.common.vec_env import SubprocVecEnv
import reward_design as rd
from reward_design.adapters.gymnasium import RewardWrapper

if __name__ == "__main__":
    faulthandler.dump_traceback_later(60, exit=True)
    reward = rd.scale(3.0)
    RewardWrapper(gymnasium.make("CartPole-v1"), reward)
    make = lambda: RewardWrapper(gymnasium.make("CartPole-v1"), reward)
    venv = SubprocVecEnv([make], start_method="forkserver")
    venv.reset()
    print(venv.step(np.array([1]))[1])
    venv.close()
    forked = SubprocVecEnv([make], start_method="fork")
    try:
        forked.reset()
    except (EOFError, ConnectionResetError):
        print("ended")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_subproc_vec_env(tmp_path):
    """The workers of stable-baselines3 hand no errors on: a forked one ends, and says why on standard error."""
    pytest.importorskip("stable_baselines3")
    out, err = run(tmp_path, SUBPROC)
    assert out.split() == ["[3.]", "ended"]
    assert f"RuntimeError: {SENTENCE}" in err


PICKLED = """
import copy, multiprocessing, pickle
import cloudpickle, gymnasium, jax.numpy as jnp, numpy as np
import reward_design as rd
from reward_design.adapters.gymnasium import RewardWrapper


def deep(depth):
    reward = rd.environment_reward()
    for _ in range(depth):
        shaping = rd.potential_shaping(lambda obs: -jnp.abs(obs[..., 2]), gamma=0.9, add=False)
        reward = rd.chain(rd.weighted_sum(a=reward, b=shaping), rd.normalise_by_return(gamma=0.9))
    return reward


def paid(env):
    env.reset(seed=0)
    return [env.step(step % 2)[1] for step in range(12)]


def child(reward, answers):
    answers.put(paid(RewardWrapper(gymnasium.make("CartPole-v1"), reward)))


if __name__ == "__main__":
    reward = deep(3)
    assert copy.copy(reward) is copy.deepcopy({"r": reward})["r"] is reward
    env = RewardWrapper(gymnasium.make("CartPole-v1"), reward)
    expected = paid(env)
    env = RewardWrapper(gymnasium.make("CartPole-v1"), reward)
    for pack in (pickle, cloudpickle):
        loaded = pickle.loads(pack.dumps(reward))
        assert [path for path, _ in rd.walk(loaded)] == [path for path, _ in rd.walk(reward)]
        assert paid(RewardWrapper(gymnasium.make("CartPole-v1"), loaded)) == expected
        assert paid(pickle.loads(pack.dumps(env))) == expected
        assert paid(RewardWrapper(gymnasium.make("CartPole-v1"), pickle.loads(pack.dumps(loaded)))) == expected
        print(*np.diff([len(pack.dumps(deep(depth))) for depth in (2, 4, 6, 8)]))
    print(*np.diff([len(cloudpickle.dumps((r, r.step, r.unroll))) for r in map(deep, (2, 4, 6, 8))]))
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=child, args=(reward, answers))
    process.start()
    assert answers.get(timeout=60) == expected
    process.join()
"""


def test_a_reward_is_pickled(tmp_path):
    for line in run(tmp_path, PICKLED)[0].splitlines():
        grown = [int(size) for size in line.split()]
        assert max(grown) < 1.5 * min(grown)  # as many bytes for every further layer
