"""What a task is made of, of the wrong kind or shape: refused in one sentence when it is made."""

import dataclasses
from typing import Any, cast

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest

import reward_design as rd
from reward_design.envs import Factor, task, task_from_gymnasium

REWARD = r"must be a Reward, which reward_design\.pointwise\(name, function\) makes, got"
THREE: Any = 3
HALF: Any = 2.5
COMPILED = r"of task .* must be written with jax\.numpy \(jnp\.sin in .*, jnp\.where .*\), because it is compiled"
BEYOND = r"of task .* reads a position that is not there: index {} is out of bounds for axis 1 with size 4 \(axis 0 c"
SHAPE = r"shape \[B\] = \(11,\) for 11 rows, got \(11, 4\); index or reduce the extra axes"


def reward(transition):
    return transition.reward


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"env_id": None}, TypeError, r"env_id must be the name under which gymnasium\.register knows .*, got None"),
        (
            {"env_id": gymnasium.Env},
            TypeError,
            "such as 'CartPole-v1', got the class Env",
        ),
        ({"success": True}, TypeError, r"success must be a function transition -> \[B\] bool, got True"),
        ({"success": lambda t: "yes"}, TypeError, "'success' of task .* must give one truth value .*, got 'yes'"),
        ({"success": lambda t: t.reward}, TypeError, r"such as t\.reward > 0, got values of float32"),
        ({"success": lambda t: t.next_obs > 0}, ValueError, f"'success' of task .* {SHAPE}"),
        ({"potential": 3}, TypeError, r"potential must be a function obs -> \[B\], got 3"),
        ({"potential": lambda obs: obs}, ValueError, f"'potential' of task .* must give one number .*: {SHAPE}"),
        ({"potential": lambda obs: obs[0]}, ValueError, r"for 11 rows, got \(4,\)"),
        ({"potential": lambda obs: 0.0}, ValueError, r"for 11 rows, got \(\)"),
        ({"potential": np.array}, TypeError, f"'potential' {COMPILED}"),
        ({"potential": lambda obs: np.sin(obs[..., 0])}, TypeError, f"'potential' {COMPILED}"),
        ({"potential": lambda obs: 1.0 if obs[0, 0] > 0 else 0.0}, TypeError, f"'potential' {COMPILED}"),
        ({"factors": {"a": Factor(lambda t: np.abs(t.reward), "1", 1, "a")}}, TypeError, f"'a' {COMPILED}"),
        ({"potential": lambda obs: obs[..., 7]}, ValueError, f"'potential' {BEYOND.format(7)}"),
        ({"potential": lambda obs: jnp.cos(obs[:, -5])}, ValueError, f"'potential' {BEYOND.format(-5)}"),
        ({"potential": lambda obs: obs[..., 0, 0, 0]}, ValueError, "position that is not there: too many indices"),
        ({"factors": {"a": Factor(lambda t: t.next_obs[..., 4], "1", 1, "a")}}, ValueError, f"'a' {BEYOND.format(4)}"),
        ({"success": lambda t: np.abs(t.obs[..., 4]) > 0}, ValueError, f"'success' {BEYOND.format(4)}"),
        ({"potentail": reward}, TypeError, r"'CartPole-v1' takes no argument 'potentail'; did you mean 'potential'\?$"),
        ({"foo": 3}, TypeError, r"^environment 'CartPole-v1' takes no argument 'foo'\.$"),
        ({"potential": lambda: 0.0}, TypeError, "'potential' of task .* fails when it is called: .* 1 was given"),
        ({"factors": {"a": reward}}, TypeError, r"factors\['a'\] must be a Factor\(.*, got the function 'reward'"),
        (
            {"factors": [reward]},
            TypeError,
            r"factors must be a dictionary that holds by name a Factor.*, got \[<function",
        ),
        ({"factors": {"a": Factor(lambda t: t.obs, "1", 1, "all")}}, ValueError, f"'a' of task .* {SHAPE}"),
        ({"dense_reward": reward}, TypeError, f"dense_reward {REWARD} the function 'reward'"),
        ({"sparse_reward": False}, TypeError, f"sparse_reward {REWARD} False"),
        ({"auxiliary": {"a": reward}}, TypeError, rf"auxiliary\['a'\] {REWARD} the function 'reward'"),
        ({"auxiliary": {1: rd.environment_reward()}}, TypeError, "the names in auxiliary must be text, got 1"),
        (
            {"info": {"x": float}},
            TypeError,
            r"info\['x'\] must be \(shape, dtype\) of an entry, .* got the class float",
        ),
        ({"info": ["x"]}, TypeError, r"info must be a dictionary that holds by name \(shape, dtype\).*, got \['x'\]"),
        ({"gamma": "0.9"}, TypeError, r"gamma must be a number in \[0, 1\], got '0\.9'"),
        ({"gamma": None}, TypeError, r"gamma must be a number in \[0, 1\], got None"),
        ({"horizon": "10"}, TypeError, "horizon must be a whole number of at least 1, or None .*, got '10'"),
        ({"horizon": True}, TypeError, "horizon must be a whole number of at least 1, or None .*, got True"),
        ({"horizon": float("nan")}, ValueError, "horizon must be a whole number of at least 1, or None .*, got nan"),
    ],
)
def test_arguments_of_a_gymnasium_task_are_checked_when_it_is_made(arguments, error, text, untyped):
    with pytest.raises(error, match=text) as refused:
        task_from_gymnasium(**{"env_id": "CartPole-v1", **arguments})
    assert "\n" not in str(refused.value)


def test_success_in_numpy_is_refused_as_agents_compile_it(untyped):
    with pytest.raises(TypeError, match=f"'success' {COMPILED}"):
        task_from_gymnasium("CartPole-v1", success=lambda t: np.linalg.norm(np.asarray(t.next_obs), axis=-1) > 0.4)
    made = task_from_gymnasium(
        "CartPole-v1", horizon=cast(int, np.int64(10)), success=lambda t: jnp.linalg.norm(t.next_obs, axis=-1) > 0.4,
        factors={"steps": Factor(lambda t: jnp.ones_like(t.terminated), "1", 1, "one per step")},
    )  # fmt: skip
    assert made.horizon == 10
    assert made.success(made.example._replace(next_obs=np.ones((1, 4)))).all()


def test_potentials_may_need_arrays_of_jax():
    made = task_from_gymnasium("CartPole-v1", potential=lambda obs: obs.at[..., 0].add(1.0)[..., 0])
    np.testing.assert_allclose(made.potential(jnp.ones((2, 4))), 2.0)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda: Factor(THREE, "1", 1, "three"),
            TypeError,
            r"fn of a Factor must be a function transition -> .*, got 3",
        ),
        (lambda: Factor(reward, "1", 7, "x"), ValueError, r"sign of a Factor must be 1 \(more .* \(less .*, got 7"),
        (
            lambda: task("chain").vector(HALF),
            TypeError,
            r"num_envs must be a whole number of at least 1, got 2\.5",
        ),
        (lambda: dataclasses.replace(task("chain"), true_reward=reward), TypeError, f"true_reward {REWARD}"),
        (lambda: dataclasses.replace(task("chain"), count_index=9), TypeError, "count_index must be a function obs"),
        (lambda: dataclasses.replace(task("chain"), factors=None), TypeError, "factors must be a dictionary .* None"),
    ],
)
def test_every_task_and_factor_is_checked_when_it_is_made(make, error, text, untyped):
    with pytest.raises(error, match=text):
        make()
