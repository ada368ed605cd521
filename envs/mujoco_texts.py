"""What people and language models are told about the MuJoCo tasks, and the numbers that their rewards need."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """One environment.

    Attributes:
        text: what it is, what is seen (indices and units) and done.
        velocity: index of the forward velocity in the observation; -1 where nothing moves forward.
        joints: indices of the joint velocities, a slice.
        paid_past: metres from which the sparse variant pays; or the radius around a target.
        success: metres to have come by the end of an episode; or the radius around a target.
    """

    text: str
    velocity: int
    joints: tuple[int, int]
    paid_past: float
    success: float


FACTS: dict[str, Facts] = {
    "HalfCheetah": Facts(
        "A planar two-legged cheetah runs to the right. Observation: 0 height of the front tip (m), 1 its angle "
        "(rad), 2-7 angles of back thigh, shin, foot and front thigh, shin, foot (rad), 8 forward velocity (m/s),"
        " 9 vertical velocity (m/s), 10 angular velocity (rad/s), 11-16 velocities of the six joints (rad/s). "
        "Actions: torques on the six joints in [-1, 1]. The environment pays the forward velocity minus 0.1 times"
        " the squared torques; nothing ends an episode but its 1000 steps of 0.05 s.",
        8, (11, 17), 5.0, 50.0,
    ),
    "Hopper": Facts(
        "A planar one-legged hopper hops to the right. Observation: 0 height of the torso (m), 1 its angle (rad),"
        " 2-4 angles of thigh, leg and foot (rad), 5 forward velocity (m/s), 6 vertical velocity (m/s), 7 angular"
        " velocity of the torso (rad/s), 8-10 velocities of the three joints (rad/s). Actions: torques on thigh, "
        "leg and foot in [-1, 1]. The environment pays the forward velocity plus 1 per step minus 0.001 times the"
        " squared torques; the episode ends when the torso is below 0.7 m or tilts by more than 0.2 rad, at the "
        "latest after 1000 steps of 0.008 s.",
        5, (8, 11), 1.0, 6.0,
    ),
    "Walker2d": Facts(
        "A planar two-legged walker walks to the right. Observation: 0 height of the torso (m), 1 its angle "
        "(rad), 2-7 angles of right thigh, leg, foot and left thigh, leg, foot (rad), 8 forward velocity (m/s), 9"
        " vertical velocity (m/s), 10 angular velocity of the torso (rad/s), 11-16 velocities of the six joints "
        "(rad/s). Actions: torques on the six joints in [-1, 1]. The environment pays the forward velocity plus 1"
        " per step minus 0.001 times the squared torques; the episode ends when the torso is outside 0.8 to 2 m "
        "or tilts by more than 1 rad, at the latest after 1000 steps of 0.008 s.",
        8, (11, 17), 1.0, 6.0,
    ),
    "Ant": Facts(
        "A four-legged ant walks in the x direction. Observation: 0 height of the torso (m), 1-4 its orientation "
        "(quaternion), 5-12 angles of hips and ankles (rad), 13-15 velocity of the torso in x, y, z (m/s), 16-18 "
        "its angular velocity (rad/s), 19-26 velocities of hips and ankles (rad/s), 27-104 contact forces on 13 "
        "bodies, cut to [-1, 1]. Actions: torques on the eight joints in [-1, 1]. The environment pays the "
        "velocity in x plus 1 per step minus 0.5 times the squared torques minus 0.0005 times the squared contact"
        " forces; the episode ends when the torso is outside 0.2 to 1 m, at the latest after 1000 steps of 0.05 "
        "s.",
        13, (19, 27), 5.0, 25.0,
    ),
    "Humanoid": Facts(
        "A humanoid walks in the x direction. Observation: 0 height of the torso (m), 1-4 its orientation "
        "(quaternion), 5-21 angles of the 17 joints (rad), 22-24 velocity of the torso (m/s), 25-27 its angular "
        "velocity (rad/s), 28-44 velocities of the joints (rad/s), then inertia, velocity, actuator and contact "
        "forces of the bodies. Actions: torques on the 17 joints in [-0.4, 0.4]. The environment pays 1.25 times "
        "the velocity in x of the centre of mass plus 5 per step minus 0.1 times the squared torques minus a "
        "small cost of contacts; the episode ends when the torso is outside 1 to 2 m, at the latest after 1000 "
        "steps of 0.015 s.",
        22, (28, 45), 1.0, 5.0,
    ),
    "Swimmer": Facts(
        "A chain of three segments swims in a viscous plane. Observation: 0 angle of the front segment (rad), 1-2"
        " angles of the two joints (rad), 3-4 velocity of the front tip in x and y (m/s), 5 angular velocity of "
        "the front segment (rad/s), 6-7 velocities of the joints (rad/s). Actions: torques on the two joints in "
        "[-1, 1]. The environment pays the velocity in x minus 0.0001 times the squared torques; nothing ends an "
        "episode but its 1000 steps of 0.04 s.",
        3, (6, 8), 2.0, 3.0,
    ),
    "InvertedPendulum": Facts(
        "A pole stands on a cart that is pushed along a rail. Observation: 0 position of the cart (m), 1 angle of"
        " the pole (rad), 2 velocity of the cart (m/s), 3 angular velocity of the pole (rad/s). Action: force on "
        "the cart in [-3, 3]. The environment pays 1 per step; the episode ends when the pole tilts by more than "
        "0.2 rad, at the latest after 1000 steps of 0.04 s, which is success.",
        -1, (2, 4), 0.02, 0.2,
    ),
    "Reacher": Facts(
        "An arm with two joints reaches for a target in the plane, at a random place in each episode. "
        "Observation: 0-1 cosines and 2-3 sines of the two angles, 4-5 place of the target (m), 6-7 angular "
        "velocities (rad/s), 8-9 fingertip minus target (m). Actions: torques on the two joints in [-1, 1]. The "
        "environment pays minus the distance from fingertip to target (m) minus the squared torques; an episode "
        "has 50 steps of 0.02 s. Success is to be within 0.02 m at the end.",
        -1, (6, 8), 0.05, 0.02,
    ),
    "Pusher": Facts(
        "An arm with seven joints pushes a cylinder to a goal on a table. Observation: 0-6 angles (rad) and 7-13 "
        "angular velocities (rad/s) of the joints, 14-16 place of the arm's tip, 17-19 of the cylinder, 20-22 of "
        "the goal (m). Actions: torques on the seven joints in [-2, 2]. The environment pays minus the distance "
        "from cylinder to goal, minus half the distance from tip to cylinder, minus 0.1 times the squared "
        "torques; an episode has 100 steps of 0.05 s. Success is to have the cylinder within 0.1 m of the goal at"
        " the end.",
        -1, (7, 14), 0.1, 0.1,
    ),
}  # fmt: skip
"""Facts by name."""
