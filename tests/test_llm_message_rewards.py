"""Rewards from a game's messages against loops written from the papers; the worker beside the learner."""

import functools
import json
import threading
import time

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reward_design as rd
from reward_design.agents import ppo
from reward_design.core import Transition
from reward_design.llm import (
    Budget,
    Labeller,
    ModelError,
    chat_model,
    classification_reward,
    ranking_reward,
    retrieval_reward,
)
from reward_design.llm.annotate_keys import digest
from reward_design.llm.annotate_learning import Fit
from reward_design.llm.annotate_rewards import CharNetwork
from reward_design.llm.annotate_worker import as_bytes

TEXTS = ["", "You see here a key.", "It's a wall.", "The door opens.", "You hear a noise.", "g - a key."]
GOOD = ("key", "door")
LENGTH = 32
SMALL = CharNetwork(8)
TINY = Fit(steps=20, batch_size=16, learning_rate=0.02, first=2)


def judge(messages):
    """FOO for what names a key or a door."""
    asked = messages[-1]["content"]
    if "second:" not in asked:
        told = asked.split("the game says:\n\n")[1].split("\n\n")[0]
        return json.dumps({"analysis": "FOO or BAR?", "label": "FOO" if any(word in told for word in GOOD) else "BAR"})
    first, second = (asked.split(f"{name}: ")[1].split("\n")[0] for name in ("first", "second"))
    value = [sum(word in told for word in GOOD) for told in (first, second)]
    closer = "equal" if value[0] == value[1] else "first" if value[0] > value[1] else "second"
    return json.dumps({"analysis": "", "closer": closer})


def labeller(fn=judge, **settings):
    return Labeller(chat_model(fn, retries=0), "open the door", **{"capacity": 64, "wait": True, **settings})


def rollout(time=24, batch=3, seed=0):
    """Random messages, with episodes that end and rows that are masked."""
    rng = np.random.default_rng(seed)
    said = as_bytes(TEXTS, LENGTH)[rng.integers(len(TEXTS), size=(time, batch))]
    zeros, ended = np.zeros((time, batch), np.float32), rng.random((time, batch)) < 0.15
    mask = rng.random((time, batch)) < 0.9
    return Transition(zeros, zeros, zeros, zeros, ended, np.zeros_like(ended), mask, {"message": said})


def learn(reward, trajectory, updates=1):
    """Params after some rollouts, and their metrics."""
    example = jax.tree.map(lambda x: x[0], trajectory)
    params, _ = reward.init(jax.random.key(0), example)
    state = reward.learner.init(jax.random.key(1), params, example)
    update = jax.jit(reward.learner.update)
    metrics = {}
    for number in range(updates):
        params, state, metrics = update(params, state, trajectory, jax.random.key(number))
    return params, state, metrics


def paid(reward, params, trajectory):
    state = reward.init(jax.random.key(0), jax.tree.map(lambda x: x[0], trajectory))[1]
    return unrolled(reward)(params, state, trajectory)[0]


@functools.lru_cache
def unrolled(reward):
    return jax.jit(reward.unroll)


def naive(trajectory, value, beta):
    """r = v / N^beta, with N anew in every episode."""
    said, expected = trajectory.info["message"], np.zeros(trajectory.reward.shape)
    for lane in range(said.shape[1]):
        counts = {}
        for t in range(said.shape[0]):
            if not trajectory.mask[t, lane]:
                continue
            text = said[t, lane].tobytes().rstrip(b"\0")
            if text:
                counts[text] = counts.get(text, 0) + 1
                expected[t, lane] = value(said[t, lane]) / counts[text] ** beta
            if trajectory.terminated[t, lane]:
                counts = {}
    return expected


def helpful(message):
    return float(any(word.encode() in message.tobytes() for word in GOOD))


# --- rewards ---------------------------------------------------------------------------------------------------------


def test_retrieval_is_the_label_over_the_episodic_count():
    trajectory, reward = rollout(), retrieval_reward(labeller(), num_messages=8)
    params, _, metrics = learn(reward, trajectory)
    assert params["beta"] == 3.0
    assert metrics["labelled"] == len(TEXTS) - 1
    for beta in (0.0, 1.0, 3.0):
        output = paid(reward, {**params, "beta": jnp.float32(beta)}, trajectory)
        np.testing.assert_allclose(output.reward, naive(trajectory, helpful, beta), rtol=1e-6)
        assert np.asarray(output.reward).max() == 1.0
    assert np.abs(output.reward - naive(trajectory, helpful, 0.0)).max() > 0.4  # the count matters


def test_nothing_is_paid_for_messages_that_nobody_labelled():
    trajectory, reward = rollout(), retrieval_reward(labeller(), num_messages=8)
    params = reward.init(jax.random.key(0), jax.tree.map(lambda x: x[0], trajectory))[0]
    assert not np.asarray(paid(reward, params, trajectory).reward).any()
    params, _, _ = learn(reward, trajectory)
    unseen = trajectory._replace(info={"message": np.where(trajectory.info["message"] > 0, 122, 0).astype(np.uint8)})
    assert not np.asarray(paid(reward, params, unseen).reward).any()
    assert np.asarray(paid(reward, params, trajectory).reward).any()


def test_classification_is_the_thresholded_probability():
    trajectory, reward = rollout(), classification_reward(labeller(), network=SMALL, fit=TINY, beta=1.0, num_messages=8)
    params, _, metrics = learn(reward, trajectory, updates=4)
    assert not np.asarray(paid(reward, {**params, "trained": jnp.float32(0)}, trajectory).reward).any()
    output = paid(reward, params, trajectory)
    np.testing.assert_allclose(output.reward, naive(trajectory, helpful, 1.0), rtol=1e-5)
    assert metrics["loss"] < 0.2
    sceptic = paid(reward, {**params, "threshold": jnp.float32(1.1)}, trajectory)
    assert not np.asarray(sceptic.reward).any()


def test_ranking_is_normalised_thresholded_and_ordered():
    trajectory = rollout()
    reward = ranking_reward(labeller(pairs=True), network=SMALL, fit=TINY, beta=1.0, threshold=0.0, num_messages=8)
    params, state, _ = learn(reward, trajectory, updates=8)
    number = int(state["count"])
    compared = np.asarray(state["messages"])[:number]
    score = lambda rows: np.asarray(SMALL.apply(params["network"], jnp.asarray(rows)))  # noqa: E731
    mean, deviation = score(compared).mean(), score(compared).std()

    def value(message):
        z = float((score(message[None])[0] - mean) / deviation)
        return z if z >= 0 else 0.0

    output = paid(reward, params, trajectory)
    np.testing.assert_allclose(output.reward, naive(trajectory, value, 1.0), rtol=1e-3, atol=1e-4)
    rows = as_bytes(["The door opens.", "It's a wall."], LENGTH)
    assert score(rows)[0] > score(rows)[1] + 0.5
    everything = paid(reward, {**params, "threshold": jnp.float32(-9)}, trajectory)
    assert np.asarray(everything.reward).min() < -0.1 < 0 <= np.asarray(output.reward).min()


@pytest.mark.parametrize("build", [retrieval_reward, classification_reward, ranking_reward])
def test_what_is_logged_is_what_is_used(build):
    trajectory = rollout()
    reward = build(
        labeller(pairs=build is ranking_reward),
        **({} if build is retrieval_reward else {"fit": TINY, "network": SMALL}),
    )
    both = rd.weighted_sum(task=rd.environment_reward(), said=reward, weights={"said": 0.4})
    params, _, _ = learn(both, trajectory, updates=2)
    output = paid(both, params, trajectory)
    alone = paid(reward, params["rewards"]["said"], trajectory)
    np.testing.assert_allclose(sum(output.terms.values()), output.reward, rtol=1e-6)
    np.testing.assert_allclose(output.reward, 0.4 * np.asarray(alone.reward), rtol=1e-6)
    assert np.abs(np.asarray(alone.reward)).max() > 0.1


def test_where_an_episode_says_more_than_can_be_told_apart_the_rarest_is_forgotten():
    said = as_bytes(["a", "a", "b", "c", "a", "b"], LENGTH)[:, None]
    flat = np.zeros((6, 1), np.float32)
    no = np.zeros((6, 1), bool)
    trajectory = Transition(flat, flat, flat, flat, no, no, ~no, {"message": said})
    reward = retrieval_reward(labeller(lambda m: '{"analysis": "", "label": "FOO"}'), beta=1.0, num_messages=2)
    params, _, _ = learn(reward, trajectory)
    np.testing.assert_allclose(paid(reward, params, trajectory).reward[:, 0], [1, 1 / 2, 1, 1, 1 / 3, 1], rtol=1e-6)


def test_keys_are_the_same_on_both_sides_and_differ_between_messages():
    rows = as_bytes([f"You see here {i} keys{'!' * (i % 3)}" for i in range(500)], 64)
    keys = digest(rows, np)
    np.testing.assert_array_equal(digest(jnp.asarray(rows)), keys)
    np.testing.assert_array_equal(digest(rows[:, :40], np), keys)  # zeros at the end do not matter
    assert len(np.unique(keys[:, 0])) == len(np.unique(rows, axis=0)) == 500


def test_the_message_is_found_or_asked_for():
    t = jax.tree.map(lambda x: x[0], rollout())
    reward = retrieval_reward(labeller())
    seen = t._replace(info={}, next_obs={"message": t.info["message"]})
    assert reward.init(jax.random.key(0), seen)[1].episode["counts"].shape == (3, 256)
    with pytest.raises(ValueError, match="give message="):
        reward.init(jax.random.key(0), t._replace(info={}))
    with pytest.raises(ValueError, match=r"must be \[B, length\] uint8, got float32"):
        retrieval_reward(labeller(), message=lambda t: t.reward).init(jax.random.key(0), t)
    with pytest.raises(ValueError, match="needs a Labeller"):
        ranking_reward(labeller())


# --- the worker ------------------------------------------------------------------------------------------------------


class Gate:
    """A model that answers when it is let, and remembers what it was asked."""

    def __init__(self, *, broken=()):
        self.open, self.asked, self.broken = threading.Event(), [], list(broken)

    def __call__(self, messages):
        self.open.wait(30)
        self.asked.append(messages[-1]["content"].split("the game says:\n\n")[1].split("\n\n")[0])
        if self.asked[-1] in self.broken:
            self.broken.remove(self.asked[-1])
            raise ModelError("malformed", "no answer")
        return judge(messages)


def until(condition):
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def test_the_newest_is_labelled_first_and_the_oldest_dropped():
    gate = Gate()
    with labeller(gate, wait=False, queue=3) as worker:
        worker.offer(as_bytes(["first"]))
        until(lambda: worker.counts()["waiting"] == 0)  # in work
        for text in ("a", "b", "c", "d", "d", "c", "first", ""):
            worker.offer(as_bytes([text]))
        assert worker.counts()["waiting"] == 3
        assert worker.counts()["dropped"] == 1
        gate.open.set()
        until(lambda: worker.counts()["labelled"] == 4)
        assert gate.asked == ["first", "d", "c", "b"]  # each once; a was dropped
        worker.offer(as_bytes(["a", "b"]))
        until(lambda: worker.counts()["labelled"] == 5)
        assert gate.asked[4:] == ["a"]


def test_failures_are_tried_again_then_given_up_and_never_become_labels():
    gate = Gate(broken=["a", "b", "b"])
    gate.open.set()
    with labeller(gate, attempts=2) as worker:
        worker.exchange(as_bytes(["a", "b", "c"]))
        counts = worker.counts()
        assert (counts["labelled"], counts["failed"], counts["retried"]) == (2, 1, 2)
        assert (b"b",) not in worker.labels
        worker.exchange(as_bytes(["b"]))
        assert gate.asked.count("b") == 2


def test_as_many_are_labelled_at_once_as_the_model_is_asked_in_parallel():
    together = threading.Barrier(3)

    def fn(messages):
        together.wait(20)  # an error, unless three are here
        return judge(messages)

    with Labeller(chat_model(fn, parallel=3, retries=0), "win", wait=True) as worker:
        worker.exchange(as_bytes(["a", "b", "c"]))
        assert worker.counts()["labelled"] == 3


def test_a_budget_stops_the_worker_and_not_the_learner():
    worker = Labeller(chat_model(judge, budget=Budget(calls=2)), "open the door", wait=True, capacity=64)
    reward = retrieval_reward(worker, num_messages=8)
    _, _, metrics = learn(reward, rollout(), updates=2)
    assert metrics["labelled"] == 2
    assert metrics["stopped"] == 1
    assert worker.stopped == "calls"


def test_a_mistake_of_the_user_is_an_error():
    worker = labeller(lambda messages: str(1 // 0))
    with pytest.raises(RuntimeError, match="labelling messages failed: integer division"):
        worker.exchange(as_bytes(["a"]))


def test_nothing_is_trained_or_paid_before_there_are_enough_labels():
    trajectory = rollout()
    reward = classification_reward(labeller(), network=SMALL, fit=Fit(steps=1, first=6), num_messages=8)
    params, _, metrics = learn(reward, trajectory)
    start = reward.init(jax.random.key(0), jax.tree.map(lambda x: x[0], trajectory))[0]
    assert metrics["labelled"] == 5
    assert params["trained"] == 0
    jax.tree.map(np.testing.assert_array_equal, params["network"], start["network"])


def test_the_learner_does_not_wait():
    gate = Gate()
    reward = retrieval_reward(labeller(gate, wait=False), num_messages=8)
    trajectory = rollout()
    learn(reward, trajectory)
    begun = time.monotonic()
    _, _, metrics = learn(reward, trajectory, updates=5)
    assert time.monotonic() - begun < 10  # of thirty that the model takes
    assert metrics["labelled"] == 0
    assert metrics["waiting"] == len(TEXTS) - 2
    gate.open.set()


def test_labels_of_an_interrupted_run_are_taken_over():
    trajectory = rollout()
    params, state, _ = learn(retrieval_reward(labeller(), num_messages=8), trajectory)
    gate = Gate()
    reward = retrieval_reward(labeller(gate, wait=False), num_messages=8)
    again, _, metrics = jax.jit(reward.learner.update)(params, state, trajectory, jax.random.key(0))
    assert metrics["labelled"] == len(TEXTS) - 1
    np.testing.assert_array_equal(again["keys"], params["keys"])
    np.testing.assert_array_equal(again["labels"], params["labels"])
    assert not gate.asked


class Corridor(gymnasium.Env):
    """Three cells with a door at the end; every step has a message."""

    observation_space = gymnasium.spaces.Dict(
        {
            "place": gymnasium.spaces.Box(0, 3, (1,), np.float32),
            "message": gymnasium.spaces.Box(0, 255, (32,), np.uint8),
        }
    )
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = 0, 0
        return self.seen(""), {}

    def step(self, action):
        self.steps += 1
        self.place = max(0, self.place + (1 if action else -1))
        text = "The door opens." if self.place == 3 else f"Cell {self.place}."
        return self.seen(text), float(self.place == 3), self.place == 3, self.steps == 12, {}

    def seen(self, text):
        return {"place": np.array([self.place], np.float32), "message": as_bytes([text], 32)[0]}


def test_a_run_on_the_host_gets_labels_while_it_trains():
    envs = gymnasium.vector.SyncVectorEnv([Corridor] * 2)
    reward = rd.weighted_sum(task=rd.environment_reward(), said=retrieval_reward(labeller()))
    config = ppo.Config(total_timesteps=512, num_steps=64, hidden=(8,))
    result = ppo.train_host(config, envs, reward, jax.random.key(0))
    metrics = result.metrics
    assert metrics["reward/said/labelled"][-1] >= 3
    assert metrics["shaped_return"][-1] == pytest.approx(metrics["term/task"][-1] + metrics["term/said"][-1], rel=1e-5)
    assert metrics["term/task"][-1] == pytest.approx(metrics["true_return"][-1])
    assert metrics["term/said"][-1] == pytest.approx(metrics["true_return"][-1])  # it says so when the door opens
    assert metrics["true_return"][-1] > 0
    envs.close()
