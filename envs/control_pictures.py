"""Pictures of the classic control tasks, of the point maze and of the continuous grid world."""

import math
from typing import Any

import numpy as np

from reward_design.envs.rendering import (
    BLUE,
    GOLD,
    GREEN,
    GREY,
    INK,
    LIGHT,
    ORANGE,
    PAPER,
    RED,
    Canvas,
    Number,
    Picture,
    Point,
)


def cartpole(x: Number, theta: Number, *, limit: Number, length: Number) -> Picture:
    """The cart between the two places where it must not go, its pole as long as it is."""
    canvas = Canvas((480, 320), (-3.0, -1.0, 3.0, 3.0))
    scale = 1.6 / (2 * length)  # the pole is drawn larger than the rail
    canvas.line([(-3, 0), (3, 0)], GREY, 2)
    for edge in (-limit, limit):
        canvas.line([(edge, -0.2), (edge, 0.2)], RED, 3)
    canvas.box((x - 0.35, -0.15), (x + 0.35, 0.2), INK, radius=0.06)
    tip = (x + 2 * length * scale * math.sin(theta), 0.1 + 2 * length * scale * math.cos(theta))
    canvas.rod((x, 0.1), tip, ORANGE, 10)
    canvas.dot((x, 0.1), BLUE, 5)
    return canvas.picture()


def mountain_car(position: Number, *, low: Number, high: Number, goal: Number) -> Picture:
    """The hill, the flag and the car, tilted as the ground is."""
    canvas = Canvas((480, 320), (low, -0.15, high, 1.35))
    xs = np.linspace(low, high, 121)
    ground = [(float(x), _hill(x)) for x in xs]
    canvas.polygon([(low, -1), *ground, (high, -1)], LIGHT)
    canvas.line(ground, GREY, 3)
    canvas.line([(goal, _hill(goal)), (goal, _hill(goal) + 0.22)], INK, 2)
    top = _hill(goal) + 0.22
    canvas.polygon([(goal, top), (goal - 0.1, top - 0.04), (goal, top - 0.08)], GREEN)
    slope = math.atan2(1.35 * math.cos(3 * position) * 320 / 1.5, 480 / (high - low))

    def along(forward: Number, up: Number) -> Point:
        """Pixels ahead of the car and above the ground, in the world."""
        right = forward * math.cos(slope) - up * math.sin(slope)
        above = forward * math.sin(slope) + up * math.cos(slope)
        return position + right * (high - low) / 480, _hill(position) + above * 1.5 / 320

    canvas.polygon([along(*p) for p in ((-17, 7), (17, 7), (17, 14), (9, 22), (-9, 22), (-17, 14))], BLUE)
    for wheel in (-10, 10):
        canvas.dot(along(wheel, 6), INK, 6)
    return canvas.picture()


def _hill(x: Number) -> float:
    return 0.45 * math.sin(3 * float(x)) + 0.55


def pendulum(cos: Number, sin: Number, speed: Number, *, max_speed: Number) -> Picture:
    """The rod, upright at the top, and an arc that tells its speed."""
    canvas = Canvas((320, 320), (-1.4, -1.4, 1.4, 1.4))
    canvas.line([(0, 1.08), (0, 1.22)], GREEN, 4)
    start = math.atan2(cos, -sin)  # angle from the x axis; theta counts from upright, counter-clockwise
    sweep = np.linspace(0.0, 0.9 * math.pi * speed / max_speed, 24)
    canvas.line([(1.2 * math.cos(start + a), 1.2 * math.sin(start + a)) for a in sweep.tolist()], GOLD, 4)
    canvas.rod((0, 0), (-sin, cos), ORANGE, 18)
    canvas.dot((0, 0), INK, 6)
    return canvas.picture()


def acrobot(theta1: Number, theta2: Number) -> Picture:
    """Two links under a hinge, and the line that the tip has to pass."""
    canvas = Canvas((360, 360), (-2.3, -2.3, 2.3, 2.3))
    canvas.line([(-2.3, 1), (2.3, 1)], GREEN, 2)
    elbow = (math.sin(theta1), -math.cos(theta1))
    tip = (elbow[0] + math.sin(theta1 + theta2), elbow[1] - math.cos(theta1 + theta2))
    canvas.rod((0, 0), elbow, BLUE, 14)
    canvas.rod(elbow, tip, ORANGE, 12)
    for joint in ((0.0, 0.0), elbow):
        canvas.dot(joint, INK, 5)
    return canvas.picture()


def point_maze(
    position: Any, velocity: Any, *, walls: np.ndarray, starts: np.ndarray, goal: Point, radius: Number
) -> Picture:
    """The maze from above with the point, the way it is going, and the goal; rows count downwards."""
    rows, columns = walls.shape
    side = int(np.clip(480 // max(rows, columns), 12, 48))
    canvas = Canvas((columns * side, rows * side), (0, rows, columns, 0), PAPER)
    for row, column in np.argwhere(walls).tolist():
        canvas.box((column, row), (column + 1, row + 1), INK)
    for row, column in starts.tolist():
        canvas.box((column + 0.1, row + 0.1), (column + 0.9, row + 0.9), LIGHT, radius=0.15)
    canvas.dot(goal, GREEN, radius * side)
    x, y = float(position[0]), float(position[1])
    canvas.line([(x, y), (x + 3 * float(velocity[0]), y + 3 * float(velocity[1]))], ORANGE, 3)
    canvas.dot((x, y), BLUE, 0.22 * side)
    return canvas.picture()


def gridworld(position: Any, *, start: Point, goal: tuple[Number, Number], trap: tuple[Number, Number]) -> Picture:
    """The unit square with the start, the goal, the box in the middle that a heuristic pays in, and the point."""
    canvas = Canvas((360, 360), (-0.02, -0.02, 1.02, 1.02), INK)
    canvas.box((0, 0), (1, 1), PAPER)
    for box, colour in ((trap, GOLD), (goal, GREEN)):
        canvas.box((box[0], box[0]), (box[1], box[1]), colour, radius=0.02)
    canvas.dot(start, LIGHT, 12)
    canvas.dot((float(position[0]), float(position[1])), BLUE, 8)
    return canvas.picture()
