"""Farama's MiniGrid on the host, next to the environments themselves."""

import pickle

import gymnasium
import jax
import numpy as np
import pytest

pytest.importorskip("minigrid")

import reward_design as rd
from reward_design.agents import ppo
from reward_design.agents.collector import Collector
from reward_design.envs import FunctionalEnv, HostEnv, task
from reward_design.envs.minigrid_parts import MILESTONES, milestone

LEVELS = [
    "MiniGrid-DoorKey-5x5-v0", "MiniGrid-Empty-5x5-v0", "MiniGrid-Fetch-5x5-N2-v0", "MiniGrid-KeyCorridorS3R1-v0",
    "MiniGrid-LavaGapS5-v0", "MiniGrid-MultiRoom-N2-S4-v0", "MiniGrid-GoToDoor-5x5-v0", "MiniGrid-LockedRoom-v0",
    "MiniGrid-Dynamic-Obstacles-5x5-v0", "MiniGrid-Unlock-v0", "MiniGrid-PutNear-6x6-N2-v0", "BabyAI-GoToLocal-v0",
]  # fmt: skip
LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE = range(6)


def of_one_hot(obs, view=7):
    """Image and direction of a one-hot observation."""
    codes = obs[: view * view * 20].reshape(view, view, 20)
    image = np.stack([codes[..., :11].argmax(-1), codes[..., 11:17].argmax(-1), codes[..., 17:].argmax(-1)], axis=-1)
    assert (codes.sum(-1) == 3).all()
    return image, obs[view * view * 20 :][:4].argmax()


def encoded_milestones(level):
    """Milestones from MiniGrid's own encoding of the grid, for levels with a goal tile or a locked door."""
    grid = level.grid.encode()
    kinds, states = grid[..., 0], grid[..., 2]
    locked = (kinds == 4) & (states == 2)
    has_key = level.carrying is not None and level.carrying.type == "key"
    targets = np.argwhere((locked if has_key else kinds == 5) if locked.any() else kinds == 8)
    far = sum(kinds.shape)
    nearest = np.abs(targets - np.array(level.agent_pos)).sum(-1).min() if len(targets) else far
    return [has_key, not locked.any(), ((kinds == 4) & (states == 0)).any(), 1 - nearest / far]


@pytest.mark.parametrize(
    ("name", "observation"),
    [(name, "symbolic") for name in LEVELS] + [(name, "one_hot") for name in LEVELS if "BabyAI" not in name],
)
def test_every_step_is_that_of_minigrid(name, observation):
    ours, theirs = task(f"minigrid/{name}", observation=observation).make(), gymnasium.make(name)
    obs, reference = ours.reset(seed=7)[0], theirs.reset(seed=7)[0]
    ours.action_space.seed(0)
    missions = set()
    for _ in range(300):
        assert ours.observation_space.contains(obs)
        missions.add(reference["mission"])
        if observation == "symbolic":
            image, direction = obs["image"], obs["direction"]
            if "mission" in obs:
                assert bytes(obs["mission"]).rstrip(b"\0").decode() == reference["mission"][:256]
        else:
            image, direction = of_one_hot(obs)
        np.testing.assert_array_equal(image, reference["image"])
        assert direction == reference["direction"]
        if any(word in name for word in ("DoorKey", "Empty", "LavaGap", "MultiRoom")):
            expected = encoded_milestones(theirs.unwrapped)
            np.testing.assert_allclose([milestone(obs, m) for m in MILESTONES], expected, atol=1e-6)
        action = ours.action_space.sample()
        (obs, *rest, info), (reference, *expected, _) = ours.step(action), theirs.step(action)
        assert rest == expected
        assert all(isinstance(info[event], bool) for event in ("success", "picked_up", "door_used", "turned", "moved"))
        if rest[1] or rest[2]:
            assert info["success"] == (float(rest[0]) > 0)
            obs, reference = ours.reset()[0], theirs.reset()[0]
    missions |= {theirs.reset(seed=seed)[0]["mission"] for seed in range(10)}
    space = task(f"minigrid/{name}", observation="symbolic").env.observation_space
    assert isinstance(space, gymnasium.spaces.Dict)
    assert ("mission" in space.spaces) == (len(missions) > 1)


def test_a_door_is_opened_with_the_key():
    known = task("minigrid/MiniGrid-DoorKey-5x5-v0", observation="symbolic")
    env = known.make()
    level = env.unwrapped
    done = []

    def act(action):
        obs, reward, terminated, _, info = env.step(action)
        done.append((float(known.potential(obs)), [name for name, value in info.items() if value], reward, terminated))

    def go(place):
        """Next to ``place`` and facing it, by the shortest way through free cells."""
        start, parents = tuple(map(int, level.agent_pos)), {}
        queue = [start]
        for x, y in queue:
            for cell in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
                thing = level.grid.get(*cell)
                is_free = cell == place or thing is None or (thing.type == "door" and thing.is_open)
                if is_free and cell not in parents:
                    parents[cell] = (x, y)
                    queue.append(cell)
        way = [place]
        while way[-1] != start:
            way.append(parents[way[-1]])
        for x, y in way[-2::-1]:
            wanted = [(1, 0), (0, 1), (-1, 0), (0, -1)].index((x - level.agent_pos[0], y - level.agent_pos[1]))
            while level.agent_dir != wanted:
                act(RIGHT)
            if (x, y) != place:
                act(FORWARD)

    obs, _ = env.reset(seed=1)
    cells = {cell.type: (i % 5, i // 5) for i, cell in enumerate(level.grid.grid) if cell and cell.type != "wall"}
    first = float(known.potential(obs))
    assert first < 1 / 3
    go(cells["key"])
    act(PICKUP)
    assert done[-1][1] == ["picked_up"]
    assert 1 / 3 < done[-1][0] < 2 / 3
    act(DROP)
    assert done[-1][1] == ["put_down"]
    assert done[-1][0] < 1 / 3
    act(PICKUP)
    go(cells["door"])
    act(TOGGLE)
    assert done[-1][1] == ["door_used"]
    assert done[-1][0] > 2 / 3
    go(cells["goal"])
    act(FORWARD)
    assert done[-1][1] == ["success", "moved"]
    assert done[-1][0] == pytest.approx(1.0)
    assert done[-1][3] is True
    assert done[-1][2] == pytest.approx(1 - 0.9 * len(done) / known.horizon)
    assert ["turned"] in [events for _, events, _, _ in done]


@pytest.mark.parametrize("name", ["MiniGrid-DoorKey-5x5-v0", "MiniGrid-Empty-5x5-v0", "BabyAI-GoToLocal-v0"])
def test_what_a_task_says_of_recorded_steps(name):
    known = task(f"minigrid/{name}")
    assert isinstance(known.env, HostEnv)

    def policy(obs, rng):
        return rng.integers(0, 6, 3), np.zeros(3)

    rows, _ = Collector(known.vector(3, seed=0), known.env, 200, seed=0).collect(policy, np.random.default_rng(0))
    for factor in known.factors.values():
        values = np.asarray(factor.fn(rows))
        assert values.shape == (200, 3)
        assert np.isfinite(values).all()
    potential = np.asarray(known.potential(rows.obs))
    assert potential.shape == (200, 3)
    assert ((potential >= 0) & (potential <= 1)).all()
    first = jax.tree.map(lambda x: x[0], rows)
    paid = {}
    for label, reward in {"sparse": known.sparse_reward, "dense": known.dense_reward, **known.auxiliary}.items():
        params, state = reward.init(jax.random.key(0), first)
        paid[label] = np.asarray(reward.unroll(params, state, rows)[0].reward)
        assert np.isfinite(paid[label]).all()
    np.testing.assert_array_equal(paid["sparse"], rows.reward > 0)
    np.testing.assert_array_equal(known.success(rows), rows.reward > 0)
    assert (rows.reward > 0).any() or "DoorKey" in name
    assert len(known.description) > 100


def test_seeds_reproduce_and_differ_also_in_worker_processes():
    def play(seed, vectorisation="sync"):
        envs = task("minigrid/MiniGrid-MultiRoom-N2-S4-v0", vectorisation=vectorisation, horizon=7).vector(2, seed=seed)
        rows = [envs.reset(seed=seed)[0]]
        for action in np.random.default_rng(0).integers(0, 6, (20, 2)):
            rows.append(envs.step(action)[0])
        envs.close()
        return np.stack(rows)

    np.testing.assert_array_equal(play(1), play(1))
    np.testing.assert_array_equal(play(1), play(1, "process"))
    assert not np.array_equal(play(1), play(2))


def test_the_version_in_the_id_tells_host_from_device():
    pytest.importorskip("xminigrid")
    assert isinstance(task("minigrid/MiniGrid-DoorKey-5x5").env, FunctionalEnv)
    assert isinstance(task("minigrid/MiniGrid-DoorKey-5x5-v0").env, HostEnv)
    host, device = task("minigrid/MiniGrid-DoorKey-5x5-v0"), task("minigrid/MiniGrid-DoorKey-5x5")
    assert host.factors.keys() == device.factors.keys()
    assert host.auxiliary.keys() == device.auxiliary.keys()


def test_horizon_and_view_can_be_set():
    known = task("minigrid/MiniGrid-Empty-5x5-v0", horizon=11, view_size=3)
    assert known.horizon == 11
    env = known.make()
    obs, _ = env.reset(seed=0)
    assert obs.shape == (3 * 3 * 20 + 8,)
    assert [env.step(LEFT)[3] for _ in range(11)] == [False] * 10 + [True]
    assert task("minigrid/MiniGrid-DoorKey-5x5-v0").horizon == 250
    assert pickle.loads(pickle.dumps(known.env)).observation_space == known.env.observation_space


def test_ppo_trains_on_it():
    known = task("minigrid/MiniGrid-Empty-5x5-v0")
    config = ppo.Config(total_timesteps=256, num_envs=2, num_steps=64, num_minibatches=2, hidden=(8,))
    shaped = rd.chain(rd.environment_reward(), rd.potential_shaping(known.potential, gamma=known.gamma))
    result = ppo.train_host(config, known.vector(2), shaped, jax.random.key(0))
    assert 0 <= result.metrics["true_return"][-1] <= 1
    assert np.isfinite(result.metrics["value_loss"]).all()


@pytest.mark.slow
def test_ppo_learns_it_from_sparse_reward_and_potential():
    known = task("minigrid/MiniGrid-Empty-5x5-v0")
    config = ppo.Config(total_timesteps=30_000, num_envs=8, num_steps=128, num_epochs=8, learning_rate=1e-3)
    shaped = rd.chain(rd.environment_reward(), rd.potential_shaping(known.potential, gamma=known.gamma))
    result = ppo.train_host(config, known.vector(8), shaped, jax.random.key(0))
    assert result.metrics["success"][-5:].mean() >= 0.9


def test_bad_input_is_refused_with_one_sentence():
    with pytest.raises(ValueError, match=r"unknown minigrid environment .*; did you mean 'MiniGrid-DoorKey-5x5-v0'\?"):
        task("minigrid/MiniGrid-DorKey-5x5-v0")
    with pytest.raises(ValueError, match=r"did you mean 'one_hot'\?"):
        task("minigrid/MiniGrid-DoorKey-5x5-v0", observation="onehot")
    with pytest.raises(ValueError, match="view_size must be odd and at least 3, got 4"):
        task("minigrid/MiniGrid-DoorKey-5x5-v0", view_size=4)
    with pytest.raises(ValueError, match="horizon must be a positive integer, got 0"):
        task("minigrid/MiniGrid-DoorKey-5x5-v0", horizon=0)
    with pytest.raises(ValueError, match="BabyAI-GoToLocal-v0 has missions of free text; use observation='symbolic'"):
        task("minigrid/BabyAI-GoToLocal-v0", observation="one_hot")
    with pytest.raises(TypeError, match=r"has no setting 'veiw_size'; did you mean 'view_size'\?"):
        task("minigrid/MiniGrid-DoorKey-5x5-v0", veiw_size=3)
    pytest.importorskip("xminigrid")
    with pytest.raises(ValueError, match=r"The host has 'minigrid/MiniGrid-LavaGapS5-v0'"):
        task("minigrid/MiniGrid-LavaGapS5")
    with pytest.raises(TypeError, match="has no setting 'vectorisation'"):
        task("minigrid/MiniGrid-DoorKey-5x5", vectorisation="sync")
