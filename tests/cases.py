"""The contract table: a row per public reward factory. A method without one makes tests/test_contract.py fail."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import reward_design as rd
from reward_design import Kind, Reward, Transition
from reward_design.bilevel import alignment_reward
from reward_design.llm import (
    Labeller,
    chat_model,
    classification_reward,
    ranking_reward,
    retrieval_reward,
    subgoal_reward,
)
from reward_design.llm.annotate_calm import programmatic
from reward_design.llm.annotate_keys import digest
from reward_design.llm.annotate_rewards import CharNetwork
from reward_design.llm.annotate_steps import Step
from reward_design.preferences import Factor, bradley_terry, factor_sum, heron, preference_reward, synthetic_teacher
from reward_design.redistribution import (
    hidden_reward,
    ircr,
    mlp,
    redistributed,
    return_decomposition,
    rrd,
    rudder,
    smoothed_ircr,
    spa,
    squared_error,
)


class Case(NamedTuple):
    """A row of the table.

    Attributes:
        factory: name of the public factory that the row is about.
        label: what is special about this row, unique together with the factory.
        build: makes the reward; it must work with array and with dictionary observations.
        kind: the kind that the reward must have.
    """

    factory: str
    label: str
    build: Callable[[], Reward]
    kind: Kind

    @property
    def id(self) -> str:
        """Name of the row in pytest."""
        return f"{self.factory}-{self.label}" if self.label else self.factory


# --- observations of both sorts, and parts that work with both --------------------------------------------------------


def array_example(batch: int = 3) -> Transition:
    """Float observations ``[B, 4]`` and integer actions."""
    obs = np.linspace(-1, 1, batch * 4, dtype=np.float32).reshape(batch, 4)
    return _example(obs, np.arange(batch, dtype=np.int32))


def dict_example(batch: int = 3) -> Transition:
    """Dictionary observations (float, integer and uint8 leaves) and continuous actions."""
    obs = {
        "position": np.linspace(-1, 1, batch * 2, dtype=np.float32).reshape(batch, 2),
        "inventory": np.arange(batch, dtype=np.int32),
        "image": np.full((batch, 2, 2), 7, np.uint8),
    }
    return _example(obs, np.zeros((batch, 2), np.float32))


def _example(obs: Any, action: Any) -> Transition:
    batch = len(action)
    flags = np.zeros(batch, bool)
    score = np.linspace(0, 1, batch, dtype=np.float32)
    info = {"next_action": action, "score": score, "hidden_reward": score}
    reward = np.ones(batch, np.float32)
    return Transition(obs, action, obs, reward, flags, flags, ~flags, info)


def vector(obs: Any) -> jax.Array:
    """Float part ``[B, n]`` of an observation of either sort."""
    return jnp.asarray(obs["position"] if isinstance(obs, dict) else obs)


def height(obs: Any) -> jax.Array:
    """A potential."""
    return 2.0 * jnp.tanh(vector(obs)[:, 0]) - 1.0


def advice(obs: Any, action: Any) -> jax.Array:
    """A potential of state-action pairs."""
    action = jnp.asarray(action, jnp.float32)
    return height(obs) * (action if action.ndim == 1 else action.sum(-1))


class Network(nn.Module):
    """A parametric potential, written as a flax module."""

    @nn.compact
    def __call__(self, obs: Any) -> jax.Array:
        """``[B]`` potentials."""
        hidden = nn.tanh(nn.Dense(8)(vector(obs)))
        return nn.Dense(1)(hidden)[:, 0]


def rooms(obs: Any) -> jax.Array:
    """Index of a coarse cell."""
    return jnp.floor(2 * vector(obs)[:, 0]).astype(jnp.int32)


def by_state(transition: Transition) -> jax.Array:
    """Features for a weight that depends on the state."""
    return vector(transition.obs)


def speed() -> Reward:
    """A POINTWISE reward with a param."""
    fn = lambda p, t: p["weight"] * jnp.sum((vector(t.next_obs) - vector(t.obs)) ** 2, axis=-1)  # noqa: E731
    return rd.pointwise("speed", fn, params={"weight": 0.5})


def fatigue() -> Reward:
    """A CAUSAL reward with episode state and running state."""

    def init(key: Any, example: Transition) -> Any:
        return {"cost": 0.1}, rd.State(episode=jnp.zeros_like(example.reward), running={"steps": jnp.zeros(())})

    def step(params: Any, state: rd.State, t: Transition) -> Any:
        reward = -params["cost"] * state.episode / (1.0 + 0.1 * state.running["steps"])
        running = {"steps": state.running["steps"] + t.mask.sum()}
        return reward, state._replace(episode=state.episode + 1, running=running)

    return rd.from_step("fatigue", init, step)


def reward_to_go() -> Reward:
    """A TRAJECTORY reward: the rest of the episode's reward, divided by the (running) number of steps seen."""

    def init(key: Any, example: Transition) -> Any:
        return {"weight": 2.0}, rd.State(running={"steps": jnp.zeros(())})

    def unroll(params: Any, state: rd.State, trajectory: Transition) -> Any:
        def back(rest: jax.Array, t: Transition) -> Any:
            total = t.reward + jnp.where(t.done, 0.0, rest)
            return jnp.where(t.mask, total, rest), total

        _, total = jax.lax.scan(back, jnp.zeros_like(trajectory.reward[0]), trajectory, reverse=True)
        seen = state.running["steps"]
        return params["weight"] * total / (1 + seen), state._replace(running={"steps": seen + trajectory.mask.sum()})

    return rd.from_trajectory("reward_to_go", init, unroll)


def random_weight() -> Reward:
    """A POINTWISE reward whose params differ from key to key."""
    fn = lambda p, t: p["w"] * t.reward + vector(t.obs)[:, 0]  # noqa: E731
    return rd.pointwise("random_weight", fn, params=lambda key, _: {"w": jax.random.normal(key)})


def mixture() -> Reward:
    """Everything at once."""
    task = rd.chain(rd.environment_reward(), rd.potential_shaping(height, gamma=0.9), rd.normalise_by_return(gamma=0.9))
    return rd.weighted_sum(task=task, tired=fatigue(), speed=speed(), weights={"tired": 0.5})


def normalised_to_go() -> Reward:
    """Trajectory reward after a normaliser."""
    return rd.chain(rd.normalise_by_return(gamma=0.9), reward_to_go(), rd.scale(0.5))


def trusted(reward: Reward) -> Reward:
    """A redistribution whose estimator counts from the start, as after learning."""

    def init(key: Any, example: Transition) -> Any:
        params, state = reward.init(key, example)
        estimator = {**params["estimator"], "trust": jnp.float32(1.0), "scale": jnp.float32(30.0)}
        return {**params, "estimator": estimator}, state

    return dataclasses.replace(reward, init=init)


def paying(reward: Reward) -> Reward:
    """A reward model as after learning; before, it pays nothing."""

    def init(key: Any, example: Transition) -> Any:
        params, state = reward.init(key, example)
        return {**params, "scale": jnp.ones_like(params["scale"])}, state

    return dataclasses.replace(reward, init=init)


def ranking() -> list[Factor]:
    """Two factors."""
    score = Factor("score", lambda t: t.info["score"], margin=0.5)
    return [score, Factor("position", lambda t: t.reward, sign=-1, aggregate="last")]


def letters(transition: Transition) -> jax.Array:
    """A message ``[B, 2]`` of few different letters."""
    return jnp.clip(jnp.round(65 + 2 * vector(transition.obs)[:, :2]), 1, 255).astype(jnp.uint8)


def labelled(factory: Callable[..., Reward], **settings: Any) -> Reward:
    """A reward from messages as after learning: half of the messages are labelled, networks are trained."""
    judge = chat_model(lambda messages: '{"analysis": "", "label": "FOO"}')
    labeller = Labeller(judge, "open the door", pairs=factory is ranking_reward, capacity=8)
    reward = factory(labeller, message=letters, num_messages=8, **settings)

    def init(key: Any, example: Transition) -> Any:
        params, state = reward.init(key, example)
        if "trained" in params:
            return {**params, "trained": jnp.float32(1)}, state
        said = [[a, b] for a in range(60, 70) for b in (64, 66)]
        keys = digest(np.array(said, np.uint8), np)
        keys = keys[np.lexsort((keys[:, 1], keys[:, 0]))][:8]
        return {**params, "keys": jnp.asarray(keys), "labels": jnp.ones(8)}, state

    return dataclasses.replace(reward, init=init)


def achieved(**settings: Any) -> Reward:
    """A reward for sub-goals that half of the steps achieve."""
    keys = [bytes([a, b]) for a in range(60, 70) for b in range(60, 70)]
    events = (frozenset({"picked_up"}), frozenset({"door_opened"}), frozenset())
    steps = [Step("", "", "", "", "", events[i % 3], key=key) for i, key in enumerate(keys)]
    return subgoal_reward(programmatic(steps), look=letters, **settings)


# --- the table -------------------------------------------------------------------------------------------------------

P, C, T = Kind.POINTWISE, Kind.CAUSAL, Kind.TRAJECTORY

CASES = [
    Case("pointwise", "", speed, P),
    Case("from_step", "", fatigue, C),
    Case("from_trajectory", "", reward_to_go, T),
    Case("environment_reward", "", rd.environment_reward, P),
    Case("chain", "pointwise", lambda: rd.chain(speed(), rd.scale(2.0), rd.scale(0.5), rd.clip()), P),
    Case("chain", "causal", lambda: rd.chain(rd.count_bonus(), fatigue(), rd.clip(-2.0, 0.5)), C),
    Case("chain", "trajectory", normalised_to_go, T),
    Case("weighted_sum", "pointwise", lambda: rd.weighted_sum(task=rd.environment_reward(), speed=speed()), P),
    Case("weighted_sum", "nested", mixture, C),
    Case("weighted_sum", "trajectory", lambda: rd.weighted_sum(credit=reward_to_go(), tired=fatigue()), T),
    Case("delayed", "pointwise", lambda: rd.delayed(rd.potential_shaping(height, gamma=0.9)), C),
    Case("delayed", "causal", lambda: rd.delayed(fatigue()), C),
    Case("delayed", "trajectory", lambda: rd.delayed(normalised_to_go(), max_length=16), C),
    Case("ensemble", "mean", lambda: rd.ensemble(random_weight(), 3), P),
    Case("ensemble", "lcb", lambda: rd.ensemble(random_weight(), 3, reduce="lcb", coefficient=0.5), P),
    Case("ensemble", "causal", lambda: rd.ensemble(rd.chain(random_weight(), fatigue()), 3, reduce="min"), C),
    Case("ensemble", "trajectory", lambda: rd.ensemble(reward_to_go(), 2, reduce="lcb"), T),
    Case("freeze_running", "", lambda: rd.freeze_running(mixture()), C),
    Case("with_params", "", lambda: rd.with_params(rd.scale(0.1), {"factor": 0.3}), P),
    Case("potential_shaping", "", lambda: rd.potential_shaping(height, gamma=0.9), P),
    Case("potential_shaping", "parametric", lambda: rd.potential_shaping(Network(), gamma=0.9, add=False), P),
    Case("potential_shaping", "dynamic", lambda: rd.potential_shaping(Network(), gamma=0.9, dynamic=True), C),
    Case("look_ahead_advice", "", lambda: rd.look_ahead_advice(advice, gamma=0.9), P),
    Case("count_bonus", "hashed", rd.count_bonus, C),
    Case("count_bonus", "indexed", lambda: rd.count_bonus(index=rooms, num_bins=8, scale=0.1), C),
    Case("count_bonus", "episodic", lambda: rd.count_bonus(num_bins=16, episodic=True, add=False), C),
    Case("clip", "", rd.clip, P),
    Case("scale", "", lambda: rd.scale(0.1), P),
    Case("normalise_by_return", "", lambda: rd.normalise_by_return(gamma=0.9), C),
    Case("centred_sigmoid", "", lambda: rd.centred_sigmoid(reference=[0.0, 1.0], slope=2.0), P),
    Case("centred_sigmoid", "info", lambda: rd.centred_sigmoid(reference="score"), P),
    Case("alignment_reward", "", lambda: alignment_reward(rd.environment_reward(), speed()), P),
    Case("alignment_reward", "linear", lambda: alignment_reward(speed(), fatigue(), features=by_state), C),
    Case("alignment_reward", "network", lambda: alignment_reward(speed(), fatigue(), network=nn.Dense(3)), C),
    Case("bradley_terry", "", lambda: paying(bradley_terry()), P),
    Case("bradley_terry", "lcb", lambda: paying(bradley_terry(num_members=3, reduce="lcb")), P),
    Case("heron", "untaught", lambda: heron(ranking()), P),
    Case("preference_reward", "", lambda: paying(preference_reward(synthetic_teacher(), num_members=2)), P),
    Case("factor_sum", "", lambda: factor_sum(ranking()), P),
    Case("log_sigmoid", "", lambda: rd.log_sigmoid(reference=0.5), P),
    Case("spa", "untaught", lambda: spa(max_length=12), C),
    Case("spa", "grounded", lambda: trusted(spa(max_length=12, valid="change", discount_compensation=0.9)), C),
    Case("spa", "equal", lambda: trusted(spa(max_length=12, correction="equal", discount_compensation=0.9)), T),
    Case("spa", "gru", lambda: trusted(spa(max_length=12, model="gru", hidden=(8,), difference=True)), C),
    Case("spa", "transformer", lambda: trusted(spa(max_length=12, model="transformer", hidden=(8,))), C),
    Case("return_decomposition", "", lambda: trusted(return_decomposition(max_length=12)), C),
    Case("rrd", "", lambda: trusted(rrd(max_length=12, unbiased=True)), C),
    Case("rudder", "", lambda: trusted(rudder(max_length=12, width=8)), T),
    Case("redistributed", "", lambda: redistributed("x", mlp(()), squared_error(per_step=True), max_length=12), C),
    Case("ircr", "", ircr, T),
    Case("ircr", "uniform", lambda: ircr(normalise=False), T),
    Case("smoothed_ircr", "", lambda: smoothed_ircr(max_length=12), C),
    Case("hidden_reward", "", hidden_reward, P),
    Case("retrieval_reward", "", lambda: labelled(retrieval_reward), C),
    Case("classification_reward", "", lambda: labelled(classification_reward, network=CharNetwork(4)), C),
    Case("subgoal_reward", "", achieved, C),
    Case("subgoal_reward", "every time", lambda: achieved(once=False), C),
    Case("ranking_reward", "", lambda: labelled(ranking_reward, network=CharNetwork(4), threshold=-9.0), C),
]
