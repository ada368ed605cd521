"""What a seed of a vector environment means, the same for every kind of task."""

import jax
import numpy as np
import pytest

from reward_design.envs import task


@pytest.mark.parametrize(
    "name", ["cartpole", "gymnasium/CartPole-v1", "robotics/PointMaze_UMaze", "minihack/Room-5x5", "mujoco/Hopper"]
)
def test_a_seed_of_vector_is_that_of_its_first_reset(name):
    known = task(name)
    seeded = lambda seed: known.vector(2).reset(seed=seed)[0]  # noqa: E731  (gymnasium's annotation has numbers only)
    expected = known.vector(2).reset(seed=3)[0]
    same = lambda obs: jax.tree.map(np.testing.assert_array_equal, obs, expected)  # noqa: E731
    same(known.vector(2, seed=3).reset()[0])
    same(known.vector(2, seed=5).reset(seed=3)[0])
    for seed in (np.int64(3), [3, 4], range(3, 5), np.array([3, 4])):
        same(seeded(seed))
    with pytest.raises(ValueError, match=r"expected one seed per lane \(2\), got 1"):
        seeded([3])
    with pytest.raises(TypeError, match="seed must be a whole number, or one for each of the 2 lanes, got '3'"):
        seeded("3")
