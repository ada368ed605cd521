"""MiniHack's levels, one at a time: against MiniHack's own environments, events, masks, ends, pictures."""

import warnings

import gymnasium
import numpy as np
import pytest

pytest.importorskip("nle")

from gymnasium.utils.env_checker import check_env

from reward_design.envs.minihack_events import EVENTS
from reward_design.envs.minihack_game import registered
from reward_design.envs.minihack_glyphs import ITEMS, glyphs
from reward_design.envs.minihack_lane import Level, MiniHackLane
from tests.minihack_play import act, equal, first_step, room, seen

KEY = "OBJECT:('(',\"skeleton key\"),(3,2)\n"
STAIRS = "STAIR:(5,1),down\n"


def original(env_id, **settings):
    """MiniHack's own environment, seeded by hand before every reset."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        full = registered()[env_id]
        keys = {"observation_keys": ("glyphs_crop", "blstats", "message", "chars"), "obs_crop_pad": glyphs().stone,
                "fix_moon_phase": True}  # fmt: skip
        return gymnasium.make(full, disable_env_checker=True, **keys, **settings).unwrapped


def seeded(env, seed):
    core, display, _ = np.random.Generator(np.random.PCG64(seed)).integers(0, 2**31 - 1, 3).tolist()
    if hasattr(env, "minigrid_env"):  # whose seed() calls a method that minigrid does not have
        env.minigrid_env.unwrapped.np_random = np.random.default_rng(core)
        env.nethack.set_initial_seeds(core, display, False, None)
    else:
        env.seed(core, display, reseed=False)
    return env.reset(options=None)[0]


@pytest.mark.parametrize(
    "env_id",
    ["Room-Ultimate-5x5", "KeyRoom-S5", "Corridor-R2", "MultiRoom-N2", "River", "Eat", "Pray", "Quest-Easy",
     "Memento-Short-F2", "ExploreMaze-Easy", "Sokoban1a", "WoD-Easy-Restricted"],
)  # fmt: skip
def test_every_step_is_that_of_minihack(env_id):
    ours, theirs = MiniHackLane(Level(env_id, horizon=10**6)), original(env_id)
    theirs._max_episode_steps = 10**6
    rng, episode = np.random.default_rng(0), 0
    one, two = ours.reset(seed=0)[0], seeded(theirs, 0)
    for t in range(250):
        np.testing.assert_array_equal(one["glyphs"], two["glyphs_crop"])
        np.testing.assert_array_equal(one["blstats"], two["blstats"].astype(np.float32))
        np.testing.assert_array_equal(one["message"], two["message"])
        action = int(rng.integers(len(theirs.actions)))
        (one, reward, terminated, _, _), (two, expected, ended, _, _) = ours.step(action), theirs.step(action)
        assert (reward, terminated) == (expected, ended)
        if ended or t % 70 == 69:
            episode += 1
            one, two = ours.reset(seed=episode)[0], seeded(theirs, episode)
    assert episode >= 3
    ours.close()
    theirs.close()


def test_minihack_terminates_at_its_time_limit_and_we_truncate():
    ours, theirs = MiniHackLane(Level("Room-15x15")), original("Room-15x15")
    ours.reset(seed=0)
    seeded(theirs, 0)
    ends = []
    for _ in range(ours.horizon):
        ends = [ours.step(0)[2:4], theirs.step(0)[2:4]]
    assert ours.horizon == 300
    assert ends == [(False, True), (True, False)]
    ours.close()
    theirs.close()


def test_success_in_the_last_step_counts():
    env, obs = room("STAIR:(3,2),down\n", horizon=1)
    assert seen(obs, "stairs") == (1, 0)
    obs, reward, terminated, truncated, info = env.step(1)
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info["events"][list(EVENTS).index("success")]
    assert seen(obs, "stairs") == (0, 0)
    assert env.reset()[0]["blstats"][10] > 0
    env.close()


def test_the_dead_see_what_they_saw_last():
    env, obs = room("MONSTER:('@',\"soldier\"),(3,2),hostile\nMONSTER:('D',\"red dragon\"),(3,1),hostile\n", "SEARCH")
    ended, events = False, set()
    while not ended:
        before = obs
        obs, events, reward, ended = act(env, "SEARCH")
    assert {"died", "hurt"} <= events
    assert "success" not in events
    assert reward == 0
    assert obs["blstats"][10] == 0
    assert obs["blstats"][:2].tolist() == before["blstats"][:2].tolist()
    assert np.count_nonzero(obs["glyphs"] != glyphs().stone) > 20
    env.close()


def test_fetching_a_key_is_seen():
    env, obs = room(KEY + STAIRS)
    assert seen(obs, "item") == (1, 0)
    assert obs["inventory"][ITEMS.index("key")] == 0
    tools = obs["inventory"][ITEMS.index("tool")]
    obs, events, _, _ = act(env, "E")
    assert events == {"picked_up", "message"}
    assert obs["inventory"][ITEMS.index("key")] == 1
    assert obs["inventory"][ITEMS.index("tool")] == tools + 1
    assert seen(obs, "item") is None
    assert act(env, "W")[1] == set()
    env.close()


def test_eating_is_seen():
    env, obs = room("OBJECT:('%',\"apple\"),(2,2)\n" + STAIRS, "EAT", "RUSH")
    assert obs["inventory"][ITEMS.index("food")] == 1  # picked up at once
    obs, events, _, _ = act(env, "EAT")
    assert b"What do you want to eat? [g or ?*]" in bytes(obs["message"])
    assert "frozen" in events
    obs, events, _, _ = act(env, "RUSH")  # its key is g
    assert {"ate", "used"} <= events
    assert obs["inventory"][ITEMS.index("food")] == 0
    assert "frozen" not in events
    env.close()


def test_doors_are_seen():
    env, obs = room("DOOR:locked,(6,3)\n" + STAIRS, "OPEN", "KICK")
    for move in ("SE", "E", "E"):
        obs = act(env, move)[0]
    assert seen(obs, "closed_door") == (1, 0)
    assert "frozen" in act(env, "OPEN")[1]
    assert "door_locked" in act(env, "E")[1]
    happened = set()
    for _ in range(60):
        act(env, "KICK")
        obs, events, _, ended = act(env, "E")
        assert "kicked" in events or ended
        happened |= events
        if "door_opened" in happened:
            break
    assert "door_opened" in happened
    assert seen(obs, "closed_door") is None
    env.close()


def test_an_opened_door_is_seen():
    env, obs = room("DOOR:closed,(6,3)\n" + STAIRS)
    for move in ("SE", "E", "E"):
        obs = act(env, move)[0]
    for _ in range(20):
        obs, events, _, _ = act(env, "E")
        if "door_opened" in events:
            break
    assert seen(obs, "open_door") == (1, 0)
    obs = act(env, "E")[0]
    assert seen(obs, "open_door") == (0, 0)  # remembered while the hero stands in it
    env.close()


def test_killing_and_standing_still_are_seen():
    env, obs = room("MONSTER:(':',\"newt\"),(3,2),asleep\n" + STAIRS)
    assert seen(obs, "monster") == (1, 0)
    happened = set()
    for _ in range(30):
        happened |= act(env, "E")[1]
        if "killed" in happened:
            break
    assert "killed" in happened
    for move in ("N", "N"):
        _, events, reward, _ = act(env, move)
    assert events == {"frozen", "message"}
    assert reward == -0.01
    assert act(env, "N")[1] == {"frozen"}  # the same message again is no news
    env.close()


@pytest.mark.parametrize("env_id", ["KeyRoom-S5", "KeyRoom-S15"])
def test_a_key_room_is_solved_stage_by_stage(env_id):
    from reward_design.envs import task

    known = task(f"minihack/{env_id}", action_mask=True)
    env = known.make()
    for seed in range(3):
        obs, happened, ended, reward = env.reset(seed=seed)[0], set(), False, 0.0
        rng, ahead = np.random.default_rng(0), 0
        while not ended:
            potential = known.potential(obs)
            if not obs["inventory"][ITEMS.index("key")]:
                move = first_step(env, seen(obs, "item"))
                action = 8 if move is None else move
                assert potential <= -4
            elif seen(obs, "open_door") is None:
                door = seen(obs, "closed_door")
                if not obs["action_mask"][ahead] or rng.random() < 0.1:
                    ahead = rng.choice(np.flatnonzero(obs["action_mask"][:8]))
                move = ahead if door is None else first_step(env, door, beside=True)
                action = 9 if move is None else move
                assert -4 <= potential < -2
            else:
                action = first_step(env, seen(obs, "stairs") or seen(obs, "open_door"))
                assert potential >= -2
            assert obs["action_mask"][action]
            obs, reward, terminated, truncated, info = env.step(action)
            happened |= {name for name, flag in zip(EVENTS, info["events"]) if flag}
            ended = terminated or truncated
        assert {"picked_up", "door_unlocked", "door_opened", "success"} <= happened
        assert reward == 1
        assert known.potential(obs) == 0
    env.close()


@pytest.mark.parametrize(
    ("env_id", "least"),
    [("Room-Monster-5x5", 100), ("KeyRoom-S5", 100), ("Corridor-R3", 50), ("MultiRoom-N2", 100), ("River-Monster", 30),
     ("CorridorBattle", 50), ("Quest-Easy", 5), ("Eat-Distr", 20), ("LavaCross-Full", 20)],
)  # fmt: skip
def test_a_masked_action_changes_nothing_then_or_later(env_id, least):
    level = Level(env_id, action_mask=True, pack=True, horizon=10**6)
    plain, disturbed = MiniHackLane(level), MiniHackLane(level)
    rng, inserted = np.random.default_rng(1), 0
    one, two = plain.reset(seed=3)[0], disturbed.reset(seed=3)[0]
    for _ in range(500):
        masked = np.flatnonzero(two["action_mask"] == 0)
        if masked.size:
            inserted, before = inserted + 1, two
            two, _, terminated, _, info = disturbed.step(rng.choice(masked))
            assert not equal(before, two, skip=("message", "action_mask"))
            assert not terminated
            assert info["events"][list(EVENTS).index("frozen")]
        action = rng.integers(plain.action_space.n)
        (one, _, ended, *_), (two, _, also, *_) = plain.step(action), disturbed.step(action)
        assert not equal(one, two, skip=("message",))
        assert ended == also
        if ended:
            one, two = plain.reset()[0], disturbed.reset()[0]
    assert inserted >= least
    plain.close()
    disturbed.close()


def test_what_is_masked():
    env, obs = room(STAIRS, "PICKUP", "EAT", "APPLY", action_mask=True)
    names = env.level.actions or ()

    def masked(obs):
        return {name for name, allowed in zip(names, obs["action_mask"]) if not allowed}

    assert masked(obs) == {"EAT"} - ({"EAT"} if obs["action_mask"][names.index("EAT")] else set())
    obs = act(env, "N")[0]
    assert {"N", "NE", "NW", "PICKUP", "EAT"} <= masked(obs)
    assert "S" not in masked(obs)
    env.close()


def test_terminal_and_picture():
    for mode in ("ansi", "rgb_array"):
        env = MiniHackLane(Level("Room-5x5"), render_mode=mode)
        env.reset(seed=0)
        first = env.render()
        picture = first
        for _ in range(4):
            env.step(5)
            picture = env.render()
        if mode == "ansi":
            assert "Dlvl:1" in "".join(part[-1:] for part in first.split("\x1b["))
            assert first != picture
        else:
            assert picture.shape == (336, 1264, 3)
            assert picture.dtype == np.uint8
            assert not np.array_equal(first, picture)
        env.close()
    assert MiniHackLane(Level("Room-5x5")).render() is None
    with pytest.raises(ValueError, match="render_mode must be 'ansi', 'rgb_array' or None, got 'human'"):
        MiniHackLane(Level("Room-5x5"), render_mode="human")


@pytest.mark.filterwarnings("ignore::UserWarning")  # of the checker: unbounded parts, no spec
def test_gymnasiums_checker():
    check_env(MiniHackLane(Level("Room-Random-5x5", action_mask=True, pack=True)), skip_render_check=True)


@pytest.mark.slow
def test_episodes_leak_nothing():
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4

    env, sizes = MiniHackLane(Level("Room-5x5", horizon=5)), []
    for episode in range(3000):
        env.reset(seed=episode)
        for _ in range(5):
            env.step(0)
        if episode in (500, 2999):
            sizes.append(resident())
    assert sizes[1] - sizes[0] < 1000  # abandoned games take 5000 kB
    env.close()
