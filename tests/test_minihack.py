"""Tasks on MiniHack: the contract, seeds, vector environments, levels of one's own, bad input, training."""

import copy
import os
import pickle
import signal
import sys

import cloudpickle
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("nle")

import reward_design as rd
from reward_design.adapters.gymnasium import VectorRewardWrapper
from reward_design.agents import ppo
from reward_design.envs import minihack_game, task
from reward_design.envs.minihack_events import EVENTS, SUCCESS
from reward_design.envs.minihack_glyphs import ITEMS, LANDMARKS
from reward_design.envs.minihack_lane import INFO
from reward_design.experiments.budgets import settings
from tests.minihack_play import MAP

NAMES = [
    "Room-5x5", "Room-15x15", "Room-Random-5x5", "Room-Dark-15x15", "Room-Monster-5x5", "Room-Trap-15x15",
    "Room-Ultimate-15x15", "Corridor-R2", "Corridor-R3", "Corridor-R5", "KeyRoom-S5", "KeyRoom-S15", "KeyRoom-Dark-S5",
    "KeyRoom-Dark-S15", "MultiRoom-N2", "MultiRoom-N4", "MultiRoom-N6", "River", "River-Narrow", "Eat", "Wear", "Wield",
    "PutOn", "Zap", "Read", "Pray", "Sink", "Freeze-Wand-Restricted", "Freeze-Horn-Restricted", "ClosedDoor",
    "LockedDoor", "Quest-Easy", "Levitate-Potion-Restricted", "WoD-Easy-Restricted", "Sokoban1a",
]  # fmt: skip
STEPS = 300


def recorded(known, steps=STEPS, seed=0):
    """Transitions of random play ``[T, 2]``, checked against the spaces."""
    envs = known.vector(2, seed=seed)
    obs, info = envs.reset()
    assert set(info) == set(INFO)
    rng, rows = np.random.default_rng(seed), []
    for _ in range(steps):
        assert envs.observation_space.contains(obs)
        action = rng.integers(envs.single_action_space.n, size=2)
        after, reward, terminated, truncated, infos = envs.step(action)
        ended = terminated | truncated
        assert not (terminated & truncated).any()
        for name, (shape, dtype) in INFO.items():
            assert infos[name].shape == (2, *shape)
            assert infos[name].dtype == dtype
        assert ("final_obs" in infos) == bool(ended.any())
        next_obs = jax.tree.map(
            lambda new, last, ended=ended: np.where(ended.reshape(2, *[1] * (new.ndim - 1)), last, new),
            after, infos.get("final_obs", after),
        )  # fmt: skip
        np.testing.assert_array_equal(infos["events"][:, SUCCESS], terminated & (infos["events"][:, SUCCESS]))
        info = {name: infos[name] for name in INFO}
        rows.append(rd.Transition(obs, action, next_obs, reward, terminated, truncated, np.ones(2, bool), info))
        obs = after
    envs.close()
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_task_says_of_recorded_steps(name):
    known = task(f"minihack/{name}")
    rows = recorded(known)
    for factor in known.factors.values():
        values = np.asarray(factor.fn(rows))
        assert values.shape == (STEPS, 2)
        assert np.isfinite(values).all()
        assert factor.sign in (-1, 1)
    for phi in (known.potential(rows.obs), known.potential(rows.next_obs)):
        assert phi.shape == (STEPS, 2)
        assert (phi <= 0).all()
        assert (phi >= -6).all()
    assert known.count_index is not None
    index = known.count_index(rows.next_obs)
    assert index.shape == (STEPS, 2)
    assert jnp.issubdtype(index.dtype, jnp.integer)
    assert 0 <= index.min() <= index.max() < 8192  # the bins of a count bonus: no two states in one
    assert known.success(rows).shape == (STEPS, 2)
    assert len(known.description) > 400
    assert known.horizon >= 40


def test_rewards_and_potential_of_a_room():
    known = task("minihack/Room-Random-5x5")
    rows = jax.tree.map(jnp.asarray, recorded(known, 200))
    won = np.asarray(known.success(rows))
    assert won.sum() >= 3
    example = jax.tree.map(lambda x: jnp.concatenate([x, x]), known.example)
    for reward in (known.true_reward, known.sparse_reward, known.dense_reward, *known.auxiliary.values()):
        params, state = reward.init(jax.random.key(0), example)
        output, _ = reward.unroll(params, state, rows)
        assert np.isfinite(output.reward).all()
        if reward is known.sparse_reward:
            np.testing.assert_array_equal(output.reward, won)
        if reward is known.true_reward:
            np.testing.assert_allclose(
                output.reward, won - 0.01 * rows.info["events"][..., _index("frozen")], atol=1e-6
            )
        if reward is known.auxiliary["misaligned"]:
            np.testing.assert_allclose(output.reward, 0.1 * rows.info["events"][..., _index("message")], atol=1e-6)
    place = np.asarray(rows.obs["landmarks"])[..., LANDMARKS.index("stairs"), :]
    assert (place[..., 2] == 1).all()
    np.testing.assert_allclose(known.potential(rows.obs), -0.1 * np.abs(place[..., :2]).max(-1), atol=1e-6)
    np.testing.assert_array_equal(known.potential(rows.next_obs)[won], 0)
    standing = np.asarray(rows.info["events"])[..., _index("frozen")]
    assert standing.any()
    np.testing.assert_array_equal(rows.obs["blstats"][standing][:, :2], rows.next_obs["blstats"][standing][:, :2])


def test_the_count_index_tells_places_apart_before_and_after_each_landmark():
    known = task("minihack/KeyRoom-S5")
    assert known.count_index is not None
    obs = recorded(known, 600).next_obs
    index = np.asarray(known.count_index(obs)).ravel()
    has_key = obs["inventory"][..., ITEMS.index("key")].ravel() > 0
    door_open = obs["landmarks"][..., LANDMARKS.index("open_door"), 2].ravel() > 0
    states = [
        *zip(*obs["blstats"][..., :2].reshape(-1, 2).T.tolist(), has_key.tolist(), door_open.tolist(), strict=True)
    ]
    assert has_key.any()
    assert not has_key.all()
    assert len(set(states)) == len(set(index.tolist())) == len({*zip(states, index.tolist(), strict=True)}) > 30


def _index(event):
    return list(EVENTS).index(event)


def played(known, seed, steps=300, reset_seed=None):
    """Everything that an environment gave in some steps, as one list of arrays."""
    envs = known.vector(2, seed=seed)
    obs, infos = envs.reset(seed=reset_seed)
    rng, rows, ends = np.random.default_rng(0), [jax.tree.leaves((obs, infos))], 0
    for _ in range(steps):
        step = envs.step(rng.integers(envs.single_action_space.n, size=2))
        ends += (step[2] | step[3]).sum()
        rows.append(jax.tree.leaves(step))
    envs.close()
    return rows, ends


def same(one, two):
    return all(len(a) == len(b) and all(map(np.array_equal, a, b)) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(
    ("name", "horizon"),
    [("Room-Ultimate-5x5", None), ("KeyRoom-S5", 90), ("Corridor-R3", 90), ("MultiRoom-N2", None), ("Quest-Easy", 90)],
)
def test_a_seed_fixes_everything_that_follows(name, horizon):
    known = task(f"minihack/{name}", horizon=horizon)
    first, ends = played(known, 3)
    assert ends >= 6
    assert same(first, played(known, 3)[0])
    assert same(first, played(known, 9, reset_seed=3)[0])
    assert not same(first, played(known, 4)[0])


def course(env, seed):
    """The status lines of an episode of random play, at most 80 steps of it."""
    lines, ended, rng = [env.reset(seed=seed)[0]["blstats"].tolist()], False, np.random.default_rng(0)
    while not ended and len(lines) < 80:
        obs, _, terminated, truncated, _ = env.step(rng.integers(8))
        lines.append(obs["blstats"].tolist())
        ended = terminated or truncated
    return str(lines)


def test_level_seeds_fix_the_layouts_and_nothing_else():
    def starts(name, seeds):
        env = task(f"minihack/{name}", level_seeds=seeds).make()
        seen = {env.reset(seed=seed)[0]["glyphs"].tobytes() for seed in range(12)}
        courses = {course(env, seed) for seed in range(4)}
        env.close()
        return len(seen), len(courses)

    assert starts("River-Monster", (7,))[0] == 1
    assert starts("River-Monster", (7,))[1] > 1
    assert starts("KeyRoom-S5", (7, 8))[0] == 2
    assert starts("MultiRoom-N2", (7,))[0] == 1
    assert starts("KeyRoom-S5", None)[0] == 12


def test_processes_give_the_same_numbers():
    def rows(vectorisation):
        known = task("minihack/KeyRoom-S5", action_mask=True, horizon=60, vectorisation=vectorisation)
        envs = known.vector(4, seed=2)
        rng, seen = np.random.default_rng(0), [jax.tree.leaves(envs.reset())]
        for _ in range(150):
            obs, reward, terminated, truncated, infos = envs.step(rng.integers(10, size=4))
            ended = terminated | truncated
            finals = [leaf[ended] for leaf in jax.tree.leaves(infos.get("final_obs", obs))]
            shown = jax.tree.leaves((obs, reward, terminated, truncated, infos["events"], infos["explored"]))
            seen.append([*shown, *finals])
        envs.close()
        return seen

    assert same(rows("sync"), rows("process"))


def test_a_killed_worker_is_replaced_in_the_middle_of_an_episode():
    envs = task("minihack/Room-15x15", vectorisation="process").vector(2, seed=0)
    envs.reset()
    for _ in range(5):
        before = envs.step(np.array([5, 5]))[0]
    os.kill(envs.pids[-1], signal.SIGKILL)
    with pytest.warns(RuntimeWarning, match="died with exit code -9; it was replaced and its episodes dropped"):
        obs, reward, terminated, truncated, infos = envs.step(np.array([5, 5]))
    lost = infos["worker_fault"]
    assert lost[-1]
    assert truncated[lost].all()
    assert not terminated.any()
    assert not reward[lost].any()
    for name in before:
        np.testing.assert_array_equal(infos["final_obs"][name][lost], before[name][lost])
    assert (obs["blstats"][lost, 20] == 1).all()  # a new game, at its first turn
    assert envs.num_faults == 1
    assert not envs.step(np.array([5, 5]))[3].any()
    envs.close()


def test_arrays_are_fresh():
    envs = task("minihack/Room-5x5").vector(2, seed=0)
    first = envs.reset()[0]
    kept = copy.deepcopy(first)
    rows = [envs.step(np.array([5, 2]))[0] for _ in range(2)]
    for name in kept:
        np.testing.assert_array_equal(first[name], kept[name])
    assert not np.array_equal(rows[0]["blstats"], rows[1]["blstats"])
    envs.close()


def test_wrapped_pickled_and_copied():
    known = task("minihack/Room-5x5")
    with pytest.raises(gymnasium.error.ResetNeeded, match="there is no episode to step"):
        known.make().step(0)
    env = known.make()
    env.reset(seed=0)
    for action in (8, -1, 1.5):
        with pytest.raises(ValueError, match=f"actions must be whole numbers from 0 to 7, got {action}"):
            env.step(action)
    for env in (copy.deepcopy(known.env), pickle.loads(pickle.dumps(known.env))):
        assert env.observation_space == known.env.observation_space
        assert env.make().reset(seed=1)[0]["blstats"].tolist() == known.make().reset(seed=1)[0]["blstats"].tolist()
    make = cloudpickle.loads(cloudpickle.dumps(known.env.make))
    assert make().reset(seed=1)[0]["message"].dtype == np.uint8
    walked = rd.pointwise("walked", lambda t: t.info["explored"])
    envs = VectorRewardWrapper(known.vector(2, seed=0), walked, info_keys=["explored"])
    envs.reset()
    _, reward, _, _, infos = envs.step(np.array([0, 1]))
    np.testing.assert_allclose(reward, infos["explored"])
    envs.close()


def test_a_level_of_ones_own():
    level = MAP + "OBJECT:('(',\"skeleton key\"),(3,2)\nSTAIR:(5,1),down\n"
    known = task("minihack/custom", des_file=level, actions=("N", "E", "S", "W"), horizon=7)
    assert known is task("minihack/custom", des_file=level, actions=("N", "E", "S", "W"), horizon=7)
    env = known.make()
    obs, _ = env.reset(seed=0)
    obs, _, _, _, info = env.step(1)
    assert info["events"][_index("picked_up")]
    assert obs["inventory"][ITEMS.index("key")] == 1
    for action in (1, 1, 0):
        _, reward, terminated, _, info = env.step(action)
    assert (reward, terminated, bool(info["events"][SUCCESS])) == (1.0, True, True)
    env.close()
    assert "N, E, S, W" in known.description
    assert known.horizon == 7


def test_more_to_see():
    known = task("minihack/Eat", crop=5, action_mask=True, pack=True)
    obs = known.make().reset(seed=0)[0]
    assert obs["glyphs"].shape == (5, 5)
    assert obs["glyphs"].dtype == np.int16
    assert obs["action_mask"].shape == (known.env.action_space.n,)
    assert known.env.observation_space["action_mask"].dtype == np.uint8
    assert bytes(obs["inv_letters"]).startswith(b"abc")
    assert known.env.observation_space.contains(obs)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Room-5x", {}, r"MiniHack has no level 'Room-5x'; did you mean 'Room-5x5'\?"),
        ("Boxoban-Medium", {}, "'Boxoban-Medium' needs level files .* it is not supported"),
        ("LavaCrossingS9N1", {}, "'LavaCrossingS9N1' was written for an older minigrid"),
        ("Room-5x5", {"crop": 4}, "crop must be an odd number from 1 to 79, got 4"),
        ("Room-5x5", {"horizon": 0}, "horizon must be a positive integer, got 0"),
        ("Room-5x5", {"gamma": 2.0}, r"gamma must be in \[0, 1\], got 2.0"),
        ("Room-5x5", {"vectorisation": "async"}, "vectorisation must be 'sync' or 'process', got 'async'"),
        ("Room-5x5", {"level_seeds": ()}, r"level_seeds must be a tuple of numbers from 0 to 2\*\*31 - 1, got \(\)"),
        ("Room-5x5", {"actions": ("N", "PICK")}, "unknown NetHack action 'PICK'; did you mean 'PICKUP'"),
        ("Room-5x5", {"actions": ()}, "actions must name at least one action"),
        ("Room-5x5", {"des_file": MAP}, "des_file goes with 'minihack/custom', and only with it"),
        ("custom", {}, "des_file goes with 'minihack/custom', and only with it"),
        ("custom", {"des_file": "MAZE: nonsense"}, "does not compile: line 1, pos 6: syntax error"),
        ("custom", {"des_file": 'LEVEL: "mine"\n'}, 'it defines no level called "mylevel"'),
    ],
)
def test_bad_input_is_refused_with_one_sentence(name, options, message):
    with pytest.raises(ValueError, match=message):
        task(f"minihack/{name}", **options)


def test_missing_packages_are_named(monkeypatch):
    def without(*modules):
        for module in [name for name in sys.modules if name.split(".")[0] in modules]:
            monkeypatch.delitem(sys.modules, module)
        for module in modules:
            monkeypatch.setitem(sys.modules, module, None)

    with monkeypatch.context():
        without("minigrid")
        with pytest.raises(ImportError, match=r"MultiRoom levels need the extra 'minigrid': pip install"):
            task("minihack/MultiRoom-N4-Locked")
    without("minihack", "nle")
    with pytest.raises(ImportError, match=r"MiniHack levels need the extra 'minihack': pip install"):
        minihack_game._minihack()


def test_setuptools_without_pkg_resources_is_named(monkeypatch):
    def broken(name):
        raise ImportError("No module named 'pkg_resources'", name="pkg_resources")

    monkeypatch.setattr(minihack_game.importlib, "import_module", broken)
    monkeypatch.setattr(minihack_game, "require", lambda *_: None)
    with pytest.raises(ImportError, match=r"MiniHack levels need pkg_resources.*pip install 'setuptools<82'"):
        minihack_game._minihack()


def test_ppo_trains_on_it():
    known = task("minihack/Room-5x5")
    config = ppo.Config(total_timesteps=2048, num_steps=64, hidden=(8,))
    shaped = rd.chain(rd.environment_reward(), rd.potential_shaping(known.potential, gamma=known.gamma))
    envs = known.vector(8)
    result = ppo.train_host(config, envs, shaped, jax.random.key(0))
    envs.close()
    assert result.metrics["episodes"].sum() > 10
    assert -1 < result.metrics["true_return"][-1] <= 1
    assert np.isfinite(result.metrics["value_loss"]).all()


@pytest.mark.slow
def test_ppo_learns_the_room_with_shaping():
    known = task("minihack/Room-5x5")
    config = settings(ppo.AGENT, known, total_timesteps=24_576)
    shaped = rd.chain(rd.environment_reward(), rd.potential_shaping(known.potential, gamma=known.gamma))
    envs = known.vector(8)
    result = ppo.train_host(config, envs, shaped, jax.random.key(0))
    envs.close()
    assert result.metrics["success"][-5:].mean() > 0.9
