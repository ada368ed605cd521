"""What every vector environment refuses in words: observations and actions that do not fit, and steps after close."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from reward_design.envs import task, task_from_gymnasium
from reward_design.envs.process_vector import ProcessVectorEnv
from reward_design.envs.serial_vector import SerialVectorEnv
from tests.process_envs import Count, Late, Listed, Narrow, Tree

SHAPE = r"'{}': the observation must have shape \(3,\), got \(1,\): correct the observation or its space\.?$"
INFO = {"time": ((), np.int64)}


def serial(kind=Count, lanes=2, **settings):
    spaces = {"observation_space": kind.observation_space, "action_space": kind.action_space}
    return SerialVectorEnv(kind, lanes, **spaces, **settings)


def process(kind=Count, lanes=2, **settings):
    return ProcessVectorEnv(kind, lanes, num_workers=1, timeout=20.0, **settings)


def hopper():
    pytest.importorskip("mujoco")
    return task("mujoco/Hopper").vector(2)


KINDS = {
    "serial": serial,
    "process": process,
    "mujoco": hopper,
    "jax": lambda: task("four_rooms").vector(2),
    "sync": lambda: task("gymnasium/CartPole-v1").vector(2),
    "async": lambda: task_from_gymnasium("CartPole-v1", vectorisation="async").vector(2),
}


@pytest.fixture(params=KINDS)
def envs(request):
    made = KINDS[request.param]()
    yield made
    made.close()


def test_nothing_goes_on_after_close(envs):
    envs.reset(seed=0)
    envs.action_space.seed(0)
    actions = envs.action_space.sample() * 0
    envs.step(actions)
    envs.close()
    envs.close()
    for call in (lambda: envs.reset(seed=0), envs.reset, lambda: envs.step(actions)):
        with pytest.raises(
            gymnasium.error.ClosedEnvironmentError, match=r"^the environments are closed; make new ones"
        ):
            call()


def test_there_is_one_action_for_each_lane(envs):
    envs.reset(seed=0)
    actions = envs.action_space.sample() * 0
    for wrong in (np.concatenate([actions, actions]), actions[:1], actions[0]):
        with pytest.raises(ValueError, match=r"^actions .*must (be|have the shape) \(2,.*, got \("):
            envs.step(wrong)
    *_, truncated, infos = envs.step(actions)  # nothing has happened to the lanes
    assert not truncated.any()
    assert "final_obs" not in infos


@pytest.mark.parametrize("make", [serial, process, KINDS["jax"], KINDS["sync"]])
def test_a_fraction_is_no_choice(make):
    envs = make()
    envs.reset(seed=0)
    with pytest.raises(TypeError, match=r"^actions must be whole numbers, got float64; the action space has int64"):
        envs.step(np.array([0.7, 1.9]))
    for dtype in (np.uint8, np.int32):
        envs.step(np.array([0, 1], dtype))
    envs.close()


@pytest.mark.parametrize("make", [serial, process])
def test_numbers_of_any_precision_are_actions_of_a_box(make):
    envs = make(Tree)
    envs.reset(seed=0)
    for dtype in (np.float64, np.float32, np.float16, int):
        reward = envs.step({"move": np.zeros(2, int), "push": np.ones((2, 2), dtype)})[1]
        assert reward.tolist() == [2, 2]
    envs.close()


def test_an_observation_that_would_be_broadcast_is_refused():
    with pytest.raises(ValueError, match="^" + SHAPE.format("Narrow")):
        serial(Narrow).reset()
    with pytest.raises(RuntimeError, match=r"could not reset .* it raised ValueError in lane 0: 'Narrow': the ob"):
        process(Narrow).reset()


def test_an_observation_that_fits_sometimes_does_not_restart_its_worker_for_ever():
    alone, envs = serial(Late), process(Late, max_faults=100)
    for one in (alone, envs):
        one.reset(seed=0)
        for _ in range(4):
            one.step(np.zeros(2, int))
    with pytest.raises(ValueError, match="^" + SHAPE.format("Late")):
        alone.step(np.zeros(2, int))
    with pytest.raises(RuntimeError, match=r"lanes 0 to 1 could not go on: it raised .* got \(1,\): correct .*\.\n"):
        envs.step(np.zeros(2, int))
    assert envs.pids == []
    with pytest.raises(ValueError, match=r"^'Listed': the observation\['a'\]\[0\] does not .* \(\), got \(1,\); c"):
        serial(Listed).reset()


def test_final_info_has_the_masks_of_gymnasium():
    pytest.importorskip("mujoco")
    hoppers = SyncVectorEnv(
        [lambda: gymnasium.make("Hopper-v5", max_episode_steps=3)] * 2, autoreset_mode=AutoresetMode.SAME_STEP
    )
    counts = SyncVectorEnv([Count] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    pairs = [
        (task("mujoco/Hopper", horizon=3).vector(2), hoppers, {"simulator_fault"}),
        (serial(info=INFO), counts, set()),
        (process(info=INFO), counts, {"worker_fault"}),
    ]
    for ours, theirs, more in pairs:
        action = np.zeros_like(ours.action_space.sample())
        ours.reset(seed=0)
        theirs.reset(seed=0)
        for _ in range(5):
            infos, expected = ours.step(action)[-1], theirs.step(action)[-1]
            if "final_info" in expected:
                break
        more = {*more, *(f"_{name}" for name in more)}
        assert set(infos["final_info"]) == set(expected["final_info"]) | more
        masks = [name for name in infos["final_info"] if name.startswith("_")]
        for given in (infos["_final_info"], infos["_final_obs"], *(infos["final_info"][name] for name in masks)):
            np.testing.assert_array_equal(given, expected["_final_info"])
        ours.close()
