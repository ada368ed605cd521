"""Levels, and a player who finds the way on the map, for the tests of MiniHack."""

from collections import deque

import numpy as np

from reward_design.envs.minihack_events import EVENTS
from reward_design.envs.minihack_glyphs import FIRST_LANDMARK, LANDMARKS, glyphs
from reward_design.envs.minihack_lane import Level, MiniHackLane

MAP = """MAZE: "mylevel",' '
FLAGS:noteleport
GEOMETRY:center,center
MAP
-------
|.....|
|.....|
|.....+
-------
ENDMAP
REGION:(0,0,6,4),lit,"ordinary"
BRANCH:(2,2,2,2),(0,0,0,0)
"""
"""A room with the hero in its middle row, at column 2."""
MOVES = ("N", "E", "S", "W", "NE", "SE", "SW", "NW")
_STEPS = {(-1, 0): 0, (0, 1): 1, (1, 0): 2, (0, -1): 3, (-1, 1): 4, (1, 1): 5, (1, -1): 6, (-1, -1): 7}


def room(parts, *actions, horizon=200, **settings):
    """The room with objects, doors or monsters in it, reset."""
    names = (*MOVES, *actions)
    env = MiniHackLane(Level("custom", des_file=MAP + parts, actions=names, horizon=horizon, **settings))
    return env, env.reset(seed=0)[0]


def act(env, name):
    """Step with an action by name. Returns the observation, the events, the reward and whether the episode ended."""
    names = env.level.actions or ()
    obs, reward, terminated, truncated, info = env.step(names.index(name))
    return obs, {event for event, flag in zip(EVENTS, info["events"]) if flag}, reward, terminated or truncated


def seen(obs, landmark):
    """Columns and rows to a landmark, or None."""
    dx, dy, known = obs["landmarks"][LANDMARKS.index(landmark)]
    return (int(dx), int(dy)) if known else None


def first_step(env, offset, *, beside=False):
    """First move on a shortest way to ``offset``, or to a cell beside it; None when there."""
    seen_map, (x, y) = env.game.arrays["glyphs"], env.game.arrays["blstats"][:2].tolist()
    goal, tables = (y + offset[1], x + offset[0]), glyphs()
    in_door = tables.door[seen_map]
    in_door[y, x] = seen_in_door(env)
    queue = deque([(y, x)])
    came: dict[tuple[int, int], tuple[int, ...]] = {(y, x): ()}
    while queue:
        here = queue.popleft()
        near = max(abs(here[0] - goal[0]), abs(here[1] - goal[1]))
        if near == 0 or (beside and near == 1):
            return came[here][0] if came[here] else None
        for (dy, dx), move in _STEPS.items():
            to = here[0] + dy, here[1] + dx
            glyph, doors = seen_map[to], in_door[to] or in_door[here]
            if to not in came and not tables.wall[glyph] and not tables.closed[glyph] and not (doors and dy and dx):
                came[to] = (*came[here], move)
                queue.append(to)
    raise AssertionError("there is no way")


def seen_in_door(env):
    """Whether the hero stands in an open door."""
    x, y = env._place
    return env._kinds[y * 79 + x] == FIRST_LANDMARK + LANDMARKS.index("open_door")


def equal(one, two, skip=()):
    """Names of the parts of two observations that differ."""
    return [name for name in one if name not in skip and not np.array_equal(one[name], two[name])]
