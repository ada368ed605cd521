"""Many seeds over several devices, checkpoints and exact resume. Devices are made in a process of their own."""

import subprocess
import sys
import textwrap
from typing import Any

import jax
import numpy as np
import pytest

import reward_design as rd
from reward_design.agents import checkpoint, dqn, ppo, train_seeds
from reward_design.agents.seeds import _chunk_length
from tests.agent_envs import Counter

CONFIG = ppo.Config(total_timesteps=256, num_envs=4, num_steps=8, num_minibatches=2, hidden=(8,), gamma=0.9)
REWARD = rd.chain(rd.environment_reward(), rd.normalise_by_return(gamma=0.9))
ENV = Counter(stoppable=True)
KEYS = jax.random.split(jax.random.key(0), 3)


def run_with_devices(script, num_devices=2, timeout=240):
    header = f"""
    import jax
    jax.config.update("jax_num_cpu_devices", {num_devices})
    import numpy as np, reward_design as rd
    from reward_design.agents import ppo, train_seeds
    from reward_design.envs import task
    assert jax.local_device_count() == {num_devices}
    """
    code = textwrap.dedent(header) + textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_seeds_equal_single_runs():
    many = train_seeds(ppo.AGENT, CONFIG, ENV, REWARD, KEYS)
    for i in range(len(KEYS)):
        one = ppo.train(CONFIG, ENV, REWARD, KEYS[i])
        for name, values in one.metrics.items():
            np.testing.assert_allclose(many.metrics[name][i], values, rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("wanted", [("on_chunk",), ("on_metrics",), ("on_chunk", "on_metrics")])
def test_chunks_change_nothing_and_report_progress(wanted):
    whole = train_seeds(ppo.AGENT, CONFIG, ENV, REWARD, KEYS)
    seen = {name: [] for name in wanted}
    listen: dict[str, Any] = {k: lambda done, metrics, *_, to=to: to.append((done, metrics)) for k, to in seen.items()}
    parts = train_seeds(ppo.AGENT, CONFIG, ENV, REWARD, KEYS, num_chunks=4, **listen)
    for heard in seen.values():
        assert [done for done, _ in heard] == [2, 4, 6, 8]
        for name in whole.metrics:
            assert heard[0][1][name].shape[:2] == (3, 2)
            np.testing.assert_array_equal(whole.metrics[name], np.concatenate([m[name] for _, m in heard], axis=1))
    for name in whole.metrics:
        np.testing.assert_array_equal(whole.metrics[name], parts.metrics[name])


@pytest.mark.parametrize(("updates", "chunks", "length"), [(8, 4, 2), (7, 3, 1), (12, 5, 2), (5, 1, 5), (3, 10, 1)])
def test_chunk_length_divides(updates, chunks, length):
    assert _chunk_length(updates, chunks) == length


def test_replays_of_many_seeds_must_fit_into_memory(monkeypatch):
    config = dqn.Config(total_timesteps=256, num_envs=4, num_steps=8, batch_size=8, learning_starts=32, hidden=(8,))
    one = jax.eval_shape(lambda: dqn.init(config, ENV, rd.environment_reward(), KEYS[0])).replay
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(one.rows))
    monkeypatch.setattr("reward_design.agents.replay._memory", lambda: 2.5 * size)
    with pytest.raises(ValueError, match=r"a replay of 768 transitions needs .* run fewer seeds at once"):
        train_seeds(dqn.AGENT, config, ENV, rd.environment_reward(), KEYS)
    assert train_seeds(dqn.AGENT, config, ENV, rd.environment_reward(), KEYS[:2]).state.num_updates.tolist() == [8, 8]


def test_a_checkpoint_resumes_exactly(tmp_path):
    identity = {"task": "counter", "seeds": [0, 1, 2], "config": {"gamma": 0.9}}

    def save_halfway(done, _, state):
        if done == 4:
            checkpoint.save(tmp_path / "run", state, step=done, identity=identity)

    whole = train_seeds(ppo.AGENT, CONFIG, ENV, REWARD, KEYS, num_chunks=4, on_chunk=save_halfway)
    like = jax.vmap(lambda key: ppo.init(CONFIG, ENV, REWARD, key))(KEYS)
    restored = checkpoint.restore(tmp_path / "run", like, identity=identity)
    assert restored is not None
    state, step = restored
    assert step == 4
    rest = train_seeds(ppo.AGENT, CONFIG, ENV, REWARD, KEYS, state=state, num_chunks=2)
    for name in whole.metrics:
        np.testing.assert_array_equal(whole.metrics[name][:, 4:], rest.metrics[name])
    for a, b in zip(jax.tree.leaves(whole.state), jax.tree.leaves(rest.state), strict=True):
        np.testing.assert_array_equal(jax.random.key_data(a) if a.dtype == KEYS.dtype else a,
                                      jax.random.key_data(b) if b.dtype == KEYS.dtype else b)  # fmt: skip
    with pytest.raises(ValueError, match=r"belongs to another run: task = 'counter' \(now 'chain'\); choose another"):
        checkpoint.restore(tmp_path / "run", like, identity={**identity, "task": "chain"})
    assert checkpoint.restore(tmp_path / "nothing", like, identity=identity) is None


def test_sharded_seeds_equal_the_unsharded_run():
    run_with_devices("""
    config = ppo.Config(total_timesteps=512, num_envs=4, num_steps=32)
    keys = jax.random.split(jax.random.key(0), 5)  # not a multiple of the number of devices
    chain = task("chain")
    reward = rd.chain(rd.environment_reward(), rd.potential_shaping(chain.potential, gamma=chain.gamma))
    sharded = train_seeds(ppo.AGENT, config, chain, reward, keys)
    assert len(jax.tree.leaves(sharded.state)[0].devices()) >= 1
    alone = train_seeds(ppo.AGENT, config, chain, reward, keys, devices=jax.local_devices()[:1])
    for name, values in alone.metrics.items():
        assert values.shape == (5, 4)
        np.testing.assert_allclose(sharded.metrics[name], values, rtol=1e-4, atol=1e-5, err_msg=name)
    """)


@pytest.mark.slow
def test_many_sharded_runs_never_deadlock():
    """A vmapped QR initialiser used to hang the CPU runtime with several devices; a hang fails by time-out."""
    run_with_devices(
        """
    config = ppo.Config(total_timesteps=1024, num_envs=4, num_steps=32)
    for repeat in range(60):
        keys = jax.random.split(jax.random.key(repeat), 16)
        result = train_seeds(ppo.AGENT, config, task("chain"), REWARD, keys) if repeat else None
        REWARD = rd.environment_reward() if repeat == 0 else REWARD
    """,
        timeout=300,
    )


@pytest.mark.slow
def test_memory_initialised_for_many_seeds_never_deadlocks():
    """The orthogonal matrices of an LSTM by a batched QR hung two runs of three; a hang fails by time-out."""
    run_with_devices(
        """
    import os
    os.environ["XLA_FLAGS"] = ""  # those of the tests hide it
    from reward_design.redistribution.estimators import recurrent
    init = jax.jit(jax.vmap(lambda key: recurrent("lstm", width=32).init(key, 60)))
    for repeat in range(400):
        params = jax.device_get(init(jax.random.split(jax.random.key(repeat), 10)))
    kernel = params["cell"]["params"]["hi"]["kernel"]
    np.testing.assert_allclose(kernel @ kernel.mT, np.broadcast_to(np.eye(32), (10, 32, 32)), atol=1e-5)
    assert len({k.tobytes() for k in kernel}) == 10
    """,
        num_devices=1,
        timeout=300,
    )


def test_use_all_cores_too_late_says_so():
    code = """
    import jax, os
    jax.numpy.zeros(1).block_until_ready()
    from reward_design.agents import use_all_cores
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        assert use_all_cores() == jax.device_count("cpu") == cores
    except RuntimeError as error:
        assert "must be called before JAX starts" in str(error) and cores > 1
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
