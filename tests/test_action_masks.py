"""Action masks: forbidden actions have no probability, and gradients stay finite."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import reward_design as rd
from reward_design.agents import networks, ppo, reinforce
from reward_design.agents.actor_critic import ActorCritic, log_prob_entropy
from reward_design.agents.host import evaluate_host
from reward_design.agents.host_policy import actor_policy
from reward_design.envs import FunctionalEnv
from reward_design.envs.host import SpacesOnly

SPACE = spaces.Dict({"x": spaces.Box(-1, 1, (2,), np.float32), "action_mask": spaces.MultiBinary(3)})
CONFIG = ppo.Config(total_timesteps=256, num_envs=4, num_steps=16, num_minibatches=2, hidden=(8,), gamma=0.9)
REWARD = rd.environment_reward()


class Masked(FunctionalEnv):
    """One of three actions is forbidden at each step, all of them at the first; pays -1 for a forbidden one."""

    name, horizon, gamma = "masked", 6, 0.9
    observation_space, action_space = SPACE, spaces.Discrete(3)

    def _reset(self, key):
        x = jax.random.normal(key, (2,))
        return {"x": x, "action_mask": jnp.zeros(3, jnp.int8)}, {"mask": jnp.ones(3, jnp.int8), "x": x}

    def _step(self, key, inner, action):
        forbidden = inner["mask"][action] == 0
        mask = jnp.ones(3, jnp.int8).at[jax.random.randint(key, (), 0, 3)].set(0)
        return {"x": inner["x"], "action_mask": mask}, {**inner, "mask": mask}, -1.0 * forbidden, jnp.bool_(False), {}

    def success(self, transition):
        return transition.reward < 0


class MaskedHost(gymnasium.Env):
    """The same for gymnasium, with actions that start at 2."""

    observation_space, action_space = SPACE, spaces.Discrete(3, start=2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.observe(), {}

    def observe(self):
        self.allowed = np.ones(3, np.int8)
        self.allowed[self.np_random.integers(3)] = 0
        return {"x": self.np_random.normal(size=2).astype(np.float32), "action_mask": self.allowed}

    def step(self, action):
        reward = float(self.allowed[action - 2]) - 1.0
        self.time += 1
        return self.observe(), reward, False, self.time == 6, {}


ENV = Masked()


def test_the_mask_is_no_input_and_absent_where_the_space_has_none():
    obs = {"x": np.ones((5, 2), np.float32), "action_mask": np.zeros((5, 3), np.int8)}
    assert networks.features(SPACE, obs).shape == (5, 2)
    np.testing.assert_array_equal(networks.features(SPACE, obs), networks.features(SPACE, obs, np))
    assert networks.action_mask(spaces.Dict({"x": SPACE["x"]}), obs) is None
    assert networks.action_mask(SPACE["x"], obs["x"]) is None


def test_log_probabilities_and_entropy_are_those_of_the_allowed_actions():
    logits = np.array([[0.3, -1.0, 2.0], [1.0, 0.5, -0.5], [0.1, 0.2, 0.3]], np.float32)
    mask = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 0]], np.int8)
    allowed = networks.action_mask(SPACE, {"x": None, "action_mask": jnp.asarray(mask)})
    log_p, entropy = log_prob_entropy(
        spaces.Discrete(3), networks.masked(jnp.asarray(logits), allowed), jnp.zeros(3), jnp.array([2, 2, 0])
    )
    p = np.exp(logits[0, [0, 2]]) / np.exp(logits[0, [0, 2]]).sum()
    q = np.exp(logits[2]) / np.exp(logits[2]).sum()
    np.testing.assert_allclose(log_p, [np.log(p[1]), 0.0, np.log(q[0])], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(entropy, [-(p * np.log(p)).sum(), 0.0, -(q * np.log(q)).sum()], rtol=1e-5, atol=1e-6)


def test_gradients_are_finite_and_zero_for_forbidden_actions():
    mask = jnp.array([[True, False, True], [False, True, False]])

    def loss(logits):
        log_p, entropy = log_prob_entropy(
            spaces.Discrete(3), networks.masked(logits, mask), jnp.zeros(3), jnp.array([0, 1])
        )
        return jnp.sum(log_p) + jnp.sum(entropy)

    grads = jax.grad(loss)(jnp.array([[0.5, 3.0, -1.0], [1.0, 2.0, 3.0]]))
    assert np.isfinite(grads).all()
    np.testing.assert_array_equal(grads[~mask], 0.0)
    assert grads[0, 0] != 0


@pytest.mark.parametrize("agent", [ppo, reinforce])
def test_agents_never_take_a_forbidden_action_on_the_device(agent):
    config = CONFIG if agent is ppo else reinforce.Config(total_timesteps=256, num_envs=4, horizon=16, hidden=(8,))
    result = agent.train(config, ENV, rd.environment_reward(), jax.random.key(0))
    np.testing.assert_array_equal(result.metrics["true_return"], 0.0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.state.params))


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_ppo_never_takes_a_forbidden_action_on_the_host(mode):
    envs = SyncVectorEnv([MaskedHost] * 4, autoreset_mode=mode)
    result = ppo.train_host(CONFIG, envs, REWARD, jax.random.key(0))
    np.testing.assert_array_equal(result.metrics["true_return"], 0.0)
    if mode is not AutoresetMode.NEXT_STEP:
        played = evaluate_host(ppo.AGENT, CONFIG, envs, result.state, num_episodes=8, deterministic=False)
        np.testing.assert_array_equal(played["true_return"], 0.0)


def test_the_masked_policy_in_numpy_is_the_one_in_jax():
    env = SpacesOnly(SyncVectorEnv([MaskedHost] * 2))
    network = ActorCritic(env, (8,), True)
    params, moments = network.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    obs = {"x": rng.normal(size=(50, 2)).astype(np.float32), "action_mask": rng.integers(0, 2, (50, 3), np.int8)}
    action, (raw, head, *_) = actor_policy(network, params, moments, deterministic=True)(obs, rng)
    expected, (_, their_head, *_) = network.act(params, moments, jax.tree.map(jnp.asarray, obs), jnp.zeros((50, 3)))
    np.testing.assert_allclose(head, their_head, atol=1e-6)
    np.testing.assert_array_equal(action, expected)
    np.testing.assert_array_equal(action, raw + 2)
    sampled, _ = actor_policy(network, params, moments)(obs, rng)
    assert networks.action_mask(SPACE, obs)[np.arange(50), sampled - 2].all()


def test_the_ratio_is_one_before_the_first_step():
    state = ppo.init(CONFIG, ENV, REWARD, jax.random.key(0))
    network = ppo._network(CONFIG, ENV)
    obs = {"x": jnp.ones((4, 2)), "action_mask": jnp.array([[1, 0, 1]] * 4)}
    noise = jax.random.gumbel(jax.random.key(1), (4, 3))
    _, (raw, head, *_) = network.act(state.params, state.moments, obs, noise)
    again = network.head(state.params, network.inputs(state.moments, obs), network.mask(obs))
    np.testing.assert_array_equal(head, again)
    assert (raw != 1).all()


def test_masks_that_cannot_work_are_refused():
    def env(space, actions):
        envs = SyncVectorEnv([MaskedHost])
        spaces_only = SpacesOnly(envs)
        spaces_only.observation_space, spaces_only.action_space = space, actions
        return spaces_only

    with pytest.raises(TypeError, match=r"'action_mask' needs Discrete actions and one entry for each, got \(3,\) for"):
        ActorCritic(env(SPACE, spaces.Discrete(4)), (8,), True)
    with pytest.raises(TypeError, match="'action_mask' needs Discrete actions"):
        ActorCritic(env(SPACE, spaces.Box(-1, 1, (3,))), (8,), True)
    bare = env(spaces.Dict({"action_mask": spaces.MultiBinary(3)}), spaces.Discrete(3))
    with pytest.raises(TypeError, match=r"needs an observation to read, got a Dict with the keys \['action_mask'\]"):
        ActorCritic(bare, (8,), True).init(jax.random.key(0))
