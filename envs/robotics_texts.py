"""What people and language models are told about the robotics tasks, and where things are in their observations."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """One environment of gymnasium-robotics.

    Attributes:
        version: of the registered id.
        text: what it is, what is seen (indices and units) and done.
        threshold: metres within which a goal counts as reached.
        velocity: indices of the velocity of what moves (gripper, ball, torso), a slice of ``observation``.
        dt: seconds by which velocities have been multiplied; 1 where they are m/s.
        has_object: whether an object is to be moved (Fetch).
        cell: side of a maze's cell in metres; 0 where there is no maze.
    """

    version: str
    text: str
    threshold: float
    velocity: tuple[int, int]
    dt: float = 1.0
    has_object: bool = False
    cell: float = 0.0


_FETCH = (
    "A robot arm with a gripper (Fetch) {does}. Observations are a dict: achieved_goal, {achieved} (x, y, z in m); "
    "desired_goal, where that should be; observation, {seen}. Actions in [-1, 1]: 0-2 displacement of the gripper in "
    "x, y, z (1 is 0.05 m per step), 3 closing and opening of the fingers{fingers}. The environment pays 0 in a step "
    "that ends with the goal reached (within 0.05 m) and -1 in any other; an episode has 50 steps of 0.04 s and never "
    "ends early. Success is to be there at the end."
)
_OBJECT = (
    "0-2 place of the gripper (m), 3-5 place of the object (m), 6-8 object minus gripper (m), 9-10 fingers (m), 11-13 "
    "rotation of the object (rad), 14-16 velocity of the object relative to the gripper (m per step), 17-19 its "
    "angular velocity (rad per step), 20-22 velocity of the gripper (m per step), 23-24 of the fingers"
)
_GRIPPER = "0-2 place of the gripper (m), 3-4 fingers (m), 5-7 velocity of the gripper (m per step), 8-9 of the fingers"


def _fetch(does: str, *, has_object: bool = True, fingers: str = ", which stay closed in this task") -> Facts:
    achieved, seen = ("place of the object", _OBJECT) if has_object else ("place of the gripper", _GRIPPER)
    text = _FETCH.format(does=does, achieved=achieved, seen=seen, fingers=fingers)
    return Facts("v4", text, 0.05, (20, 23) if has_object else (5, 8), 0.04, has_object)


_MAZE = (
    "{who} has to get from one place in a maze to another ({maze}), both at random. Observations are a dict: "
    "achieved_goal, its place (x, y in m); desired_goal, where it should be; observation, {seen}. Actions in [-1, 1]: "
    "{actions}. The environment pays 1 in a step that ends within 0.45 m of the goal and 0 in any other; an episode "
    "has {horizon} steps of {seconds} s. Success is to be there at the end."
)
_BALL = ("A ball", "0-1 its place (m), 2-3 its velocity (m/s)", "forces in x and y")
_ANT = (
    "A four-legged ant",
    "0 height of the torso (m), 1-4 its orientation (quaternion), 5-12 angles of hips and ankles (rad), 13-15 velocity "
    "of the torso (m/s), 16-18 its angular velocity (rad/s), 19-26 velocities of hips and ankles (rad/s), 27-104 "
    "contact forces, cut to [-1, 1]",
    "torques on the eight joints",
)
MAZES = {
    "UMaze": "a corridor in the shape of a U, 3 by 3 cells",
    "Open": "a room without inner walls, 5 by 3 cells",
    "Medium": "6 by 6 cells with walls",
    "Large": "10 by 7 cells with walls",
}
"""Layouts and their text."""
_STEPS = {"Point": (300, 300, 600, 800), "Ant": (700, 700, 1000, 1000)}


def _mazes(kind: str, parts: tuple[str, str, str], velocity: tuple[int, int], cell: float) -> dict[str, Facts]:
    version, seconds = ("v3", 0.01) if kind == "Point" else ("v5", 0.05)
    who, seen, actions = parts
    facts = {}
    for (layout, line), horizon in zip(MAZES.items(), _STEPS[kind], strict=True):
        maze = f"{line} of {cell:g} m"
        text = _MAZE.format(who=who, maze=maze, seen=seen, actions=actions, horizon=horizon, seconds=seconds)
        facts[f"{kind}Maze_{layout}"] = Facts(version, text, 0.45, velocity, cell=cell)
    return facts


FACTS: dict[str, Facts] = {
    "FetchReach": _fetch("moves its gripper to a place in the air", has_object=False),
    "FetchPush": _fetch("pushes a box to a place on the table"),
    "FetchSlide": _fetch("hits a puck so that it slides to a place on the table out of reach"),
    "FetchPickAndPlace": _fetch("grasps a box and brings it to a place on the table or in the air", fingers=""),
    **_mazes("Point", _BALL, (2, 4), 1.0),
    **_mazes("Ant", _ANT, (13, 15), 4.0),
}
"""Facts by name."""
