"""Torsos: which part of an observation is read how, against convolutions and loops, and what they learn."""

import flax.linen as nn
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import reward_design as rd
from reward_design.agents import base, ppo, torsos
from reward_design.agents.actor_critic import ActorCritic
from reward_design.agents.collector import Collector
from reward_design.agents.host import described, evaluate_host
from reward_design.agents.host_policy import actor_policy
from reward_design.envs import task_from_gymnasium
from tests.memory_envs import Parts

REWARD = rd.environment_reward()
CONFIG = ppo.Config(
    total_timesteps=64, num_envs=2, num_steps=16, num_minibatches=2, num_epochs=1, hidden=(8,), torso="conv"
)


def vector(mode=AutoresetMode.SAME_STEP, lanes=2):
    return SyncVectorEnv([lambda i=i: Parts(i) for i in range(lanes)], autoreset_mode=mode)


@pytest.mark.parametrize(
    ("space", "kind"),
    [
        (spaces.Discrete(3), "one_hot"),
        (spaces.MultiDiscrete([2, 3]), "one_hot"),
        (spaces.MultiBinary(4), "one_hot"),
        (spaces.Box(0, 5976, (9, 9), np.int16), "codes"),
        (spaces.Box(0, 5976, (21, 79), np.int32), "codes"),
        (spaces.Box(0, 255, (21, 79), np.uint8), "codes"),
        (spaces.Box(0, 255, (7, 7, 3), np.uint8), "codes"),
        (spaces.Box(0, 12, (2,), np.uint8), "codes"),
        (spaces.Box(0, 255, (56, 56, 3), np.uint8), "pixels"),
        (spaces.Box(0, 255, (84, 84), np.uint8), "pixels"),
        (spaces.Box(0.0, 1.0, (10, 10, 4)), "image"),
        (spaces.Box(0, 255, (256,), np.uint8), "text"),
        (spaces.Box(0, 255, (8,), np.uint8), "floats"),
        (spaces.Box(-(2**31), 2**31 - 1, (27,), np.int64), "floats"),
        (spaces.Box(-np.inf, np.inf, (17,)), "floats"),
    ],
)
def test_the_space_decides_how_a_part_is_read(space, kind):
    assert torsos.part_of(space).kind == kind


@pytest.mark.parametrize(("size", "stride", "pad"), [(3, 2, True), (3, 1, True), (8, 4, False), (4, 2, False)])
@pytest.mark.parametrize("side", [(9, 9), (11, 8)])
def test_patches_times_a_matrix_are_a_convolution(size, stride, pad, side):
    x = jax.random.normal(jax.random.key(0), (2, *side, 3))
    kernel = jax.random.normal(jax.random.key(1), (size, size, 3, 5))
    conv = nn.Conv(5, (size, size), stride, "SAME" if pad else "VALID", use_bias=False)
    theirs = np.asarray(conv.apply({"params": {"kernel": kernel}}, x))
    ours = torsos.patches(x, size, stride, pad=pad) @ kernel.reshape(-1, 5)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_trigrams_are_those_of_a_loop_over_the_text():
    def buckets(text):
        triples = zip(text, text[1:], text[2:], strict=False)
        return {((a * 961 + b * 31 + c) * 2654435761 % 2**32) >> 23 for a, b, c in triples if a * b * c}

    texts = [b"You see here a key.", b"You see a key.", b"", b"ab"]
    padded = np.stack([np.frombuffer(text.ljust(64, b"\0"), np.uint8) for text in texts])
    found = np.asarray(torsos.trigrams(jnp.asarray(padded).reshape(2, 2, 64))).reshape(4, -1)
    for row, text in zip(found, texts, strict=True):
        assert set(np.flatnonzero(row).tolist()) == buckets(text)
    assert found[0].sum() > found[1].sum() > 0 == found[2:].sum()


def test_every_part_but_the_mask_moves_the_output_and_has_a_finite_gradient():
    network = ActorCritic(described(vector()), (8,), True, torso="conv")
    params, moments = network.init(jax.random.key(0))
    env = Parts()
    obs = jax.tree.map(lambda x: jnp.asarray(x)[None], env.reset()[0])
    other = jax.tree.map(lambda x: jnp.asarray(x)[None], env.step(0)[0])
    moments = network.update_moments(moments, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), obs, other))
    value = lambda params, obs: network.value(params, network.latents(params, network.inputs(moments, obs)))[0]  # noqa: E731
    plain = value(params, obs)
    leaves, structure = jax.tree.flatten_with_path(obs)
    for i, (path, _) in enumerate(leaves):
        changed = [leaf for _, leaf in leaves]
        changed[i] = 1 - changed[i] if "action_mask" in str(path) else jax.tree.leaves(other)[i]
        same = bool(value(params, jax.tree.unflatten(structure, changed)) == plain)
        assert same == ("action_mask" in str(path) or bool((changed[i] == leaves[i][1]).all())), path
    grads = jax.grad(value)(params, obs)["bodies"]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert all((leaf != 0).any() for path, leaf in jax.tree.leaves_with_path(grads) if "kernel" in str(path))


def test_embeddings_are_sums_over_the_channels():
    rng = np.random.default_rng(0)
    part = torsos.part_of(spaces.Box(-1, 6, (4, 3, 2), np.int16))
    table = rng.normal(size=(16, 5)).astype(np.float32)
    x = rng.integers(-2, 9, (6, 4, 3, 2)).astype(np.int16)
    codes = np.clip(x, -1, 6) + 1  # codes outside the space become the nearest ones inside
    expected = table[codes[..., 0]] + table[8 + codes[..., 1]]
    np.testing.assert_allclose(torsos.embed(jnp.asarray(table), part, jnp.asarray(x)), expected, rtol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
def test_ppo_trains_on_every_kind_of_part_on_the_host(shared):
    config = ppo.Config(
        total_timesteps=64, num_envs=2, num_steps=16, num_minibatches=2, num_epochs=1, hidden=(8,), torso="conv",
        shared_torso=shared,
    )  # fmt: skip
    envs = vector()
    result = ppo.train_host(config, envs, REWARD, jax.random.key(0))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((result.state.params, result.state.moments)))
    assert result.state.moments.mean.shape == (5,)
    assert set(result.state.params["bodies"]) == ({"shared"} if shared else {"actor", "critic"})
    assert len(evaluate_host(ppo.AGENT, config, envs, result.state, num_episodes=4)["length"]) == 4


def test_the_policy_on_the_host_is_the_one_of_the_update():
    envs = vector()
    env = described(envs)
    state = ppo.init(CONFIG, env, REWARD, jax.random.key(0))
    rows, acted = Collector(envs, env, 16).collect(ppo.host_policy(CONFIG, env, state), np.random.default_rng(0))
    network = ppo._network(CONFIG, env)
    obs = jax.tree.map(jnp.asarray, rows.obs)
    z = network.latents(state.params, network.inputs(state.moments, obs))
    np.testing.assert_allclose(network.head(state.params, z, network.mask(obs)), acted.head, rtol=1e-4, atol=1e-4)
    assert (acted.raw != 2).all()


def test_the_host_policy_survives_the_donation_of_its_parameters_and_compiles_once():
    envs = vector()
    network = ActorCritic(described(envs), (8,), True, torso="conv")
    params, moments = network.init(jax.random.key(0))
    policy, obs = actor_policy(network, params, moments, deterministic=True), envs.reset()[0]
    before = policy(obs, np.random.default_rng(0))
    jax.tree.map(lambda leaf: leaf.delete(), params)
    jax.tree.map(np.testing.assert_array_equal, policy(obs, np.random.default_rng(0)), before)


def test_unknown_torsos_and_unreadable_spaces_are_refused():
    with pytest.raises(ValueError, match=r"torso must be 'mlp' or 'conv', got 'convv'; did you mean 'conv'\?"):
        ppo.Config(torso="convv")
    with pytest.raises(TypeError, match="cannot read observations from Text"):
        torsos.torso(spaces.Dict({"x": spaces.Text(3)}))
    with pytest.raises(TypeError, match="needs an observation to read"):
        torsos.torso(spaces.Dict({"action_mask": spaces.MultiBinary(2)}))


def test_conv_runs_in_one_jit_on_the_device():
    pytest.importorskip("xminigrid")
    from reward_design.envs.minigrid_adapter import minigrid_task

    level = minigrid_task("MiniGrid-Empty-5x5", observation="symbolic")
    result = ppo.train(CONFIG, level, REWARD, jax.random.key(0))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.state.params))
    played = base.evaluate(ppo.AGENT, CONFIG, level, result.state, jax.random.key(1), num_episodes=2)
    assert played["length"].shape == (2,)


@pytest.mark.slow
def test_conv_with_memory_learns_an_empty_room_of_minigrid_on_the_device():
    pytest.importorskip("xminigrid")
    from reward_design.envs.minigrid_adapter import minigrid_task

    level = minigrid_task("MiniGrid-Empty-5x5", observation="symbolic")
    config = ppo.Config(total_timesteps=40_960, num_envs=16, num_steps=64, torso="conv", recurrent=32)
    result = ppo.train(config, level, REWARD, jax.random.key(0))
    assert result.metrics["success"][-5:].mean() > 0.9
    assert result.metrics["length"][-5:].mean() < 12


@pytest.mark.slow
def test_conv_learns_an_empty_room_of_minigrid_on_the_host():
    pytest.importorskip("minigrid")
    from minigrid.wrappers import ImgObsWrapper

    if "TorsoEmpty-v0" not in gymnasium.registry:
        gymnasium.register("TorsoEmpty-v0", lambda **kw: ImgObsWrapper(gymnasium.make("MiniGrid-Empty-5x5-v0", **kw)))
    room = task_from_gymnasium("TorsoEmpty-v0", success=lambda t: t.terminated)
    config = ppo.Config(total_timesteps=30_720, num_envs=8, num_steps=64, torso="conv")
    result = ppo.train_host(config, room.vector(8), REWARD, jax.random.key(0))
    assert result.metrics["true_return"][-5:].mean() > 0.9


def test_dict_observations_without_a_torso_are_flat():
    assert ppo.train_host(
        ppo.Config(total_timesteps=128, num_steps=16, num_minibatches=2, hidden=(8,)),
        vector(),
        REWARD,
        jax.random.key(0),
    ).state.moments.mean.shape == (25 + 48 + 36 * 36 * 3 + 64 + 5 + 3 + 2,)
