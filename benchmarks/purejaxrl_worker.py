"""Times a checkout of purejaxrl for `throughput.py`, in a process and an environment of its own.

    python purejaxrl_worker.py PATH TOTAL_TIMESTEPS

Compiles once and prints the seconds that took; then runs once for every line on standard input and prints the seconds.
The environment needs jax, flax, optax, distrax and gymnax (and six). purejaxrl was written for gymnax before 1.0, whose
``step`` returned five values: the wrapper below returns those. Imports that CartPole does not use are left empty.
"""

import sys
import time
from unittest import mock

import gymnax
import jax


class FiveValues:
    """An environment whose ``step`` has one ``done``, as gymnax had before 1.0."""

    def __init__(self, env):
        self._env = env

    def __getattr__(self, name):
        return getattr(self._env, name)

    def step(self, key, state, action, params=None):
        """(obs, state, reward, done, info)."""
        obs, state, reward, terminated, truncated, _ = self._env.step(key, state, action, params)
        return obs, state, reward, terminated | truncated, {}


def load(path):
    """Import the ppo module of the checkout."""
    for name in ("brax", "brax.envs", "brax.envs.wrappers", "brax.envs.wrappers.training", "navix"):
        sys.modules[name] = mock.MagicMock()
    sys.path.insert(0, f"{path}/purejaxrl")
    original = gymnax.make

    def make(env_id):
        env, params = original(env_id)
        return FiveValues(env), params

    gymnax.make = make
    import ppo  # pyright: ignore[reportMissingImports]

    return ppo


def main():
    """Answer every line on standard input with the seconds of one training."""
    path, steps = sys.argv[1], int(sys.argv[2])
    config = {
        "LR": 2.5e-4, "NUM_ENVS": 4, "NUM_STEPS": 128, "TOTAL_TIMESTEPS": steps, "UPDATE_EPOCHS": 4,
        "NUM_MINIBATCHES": 4, "GAMMA": 0.99, "GAE_LAMBDA": 0.95, "CLIP_EPS": 0.2, "ENT_COEF": 0.01, "VF_COEF": 0.5,
        "MAX_GRAD_NORM": 0.5, "ACTIVATION": "tanh", "ENV_NAME": "CartPole-v1", "ANNEAL_LR": True, "DEBUG": False,
    }  # fmt: skip
    train = jax.jit(load(path).make_train(config))
    start = time.perf_counter()
    compiled = train.lower(jax.random.PRNGKey(0)).compile()
    jax.block_until_ready(compiled(jax.random.PRNGKey(0)))
    print(time.perf_counter() - start, flush=True)
    for seed, _ in enumerate(sys.stdin):
        start = time.perf_counter()
        jax.block_until_ready(compiled(jax.random.PRNGKey(seed)))
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
