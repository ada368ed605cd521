"""An environment for the adapter tests, without JAX, so that worker processes start quickly."""

import gymnasium
import numpy as np
from gymnasium import spaces

LIMIT = 6


class Walk(gymnasium.Env):
    """Random walk that ends in both ways, sometimes at once, and hands out the same observation buffer every time.

    With ``reuse=False`` observations are new arrays: gymnasium (SAME_STEP) and stable-baselines3 keep a reference to an
    episode's last observation while they reset, which no wrapper above them can mend.

    Info has ``speed`` and ``event`` after a step and only ``start`` after a reset.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(self, layout="box", reuse=True, render_mode=None, limit=LIMIT):
        self.reuse, self.limit = reuse, limit
        self.layout, self.render_mode = layout, render_mode
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        box = spaces.Box(-5.0, 5.0, (2,), np.float32)
        parts = {"position": box, "cell": spaces.Discrete(11)}
        self.observation_space = {
            "box": box,
            "dict": spaces.Dict(parts),
            "nested": spaces.Dict({"body": spaces.Dict(parts)}),
            "tuple": spaces.Tuple((box, spaces.Dict(parts))),
        }[layout]
        self._position, self._time = np.zeros(2, np.float32), 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._position[:] = self.np_random.uniform(-0.5, 0.5, 2)
        self._time = 0
        return self._observed(), {"start": 1}

    def step(self, action):
        move = 0.4 * action + self.np_random.normal(0.0, 0.3, 2)
        self._position[:] = np.clip(self._position + move, -5, 5)
        self._time += 1
        info = {"speed": float(np.abs(move).sum()), "event": (move > 0).astype(np.int64)}
        reward = float(1.0 - np.abs(self._position).sum())
        terminated = bool(self._position[0] > 0.9)
        return self._observed(), reward, terminated, self._time >= self.limit, info

    def render(self):
        return np.full((4, 4, 3), self._time, np.uint8)

    def _observed(self):
        position = self._position if self.reuse else self._position.copy()
        if self.layout == "box":
            return position
        parts = {"position": position, "cell": np.int64(np.floor(self._position[0]) + 5)}
        return {"dict": parts, "nested": {"body": parts}, "tuple": (position, parts)}[self.layout]


def record(num_envs, num_steps, layout="box", seed=5, limit=LIMIT):
    """The bare environment's episodes, lane by lane, without any vector environment: a dict of lists of rows."""
    lanes = []
    for lane in range(num_envs):
        env, rows = Walk(layout, limit=limit), []
        actions = lane_actions(lane, num_steps)
        obs = _copied(env.reset(seed=seed + lane)[0])
        for action in actions:
            next_obs, reward, terminated, truncated, info = env.step(action)
            next_obs = _copied(next_obs)
            rows.append((obs, action, next_obs, reward, terminated, truncated, info))
            obs = _copied(env.reset()[0]) if terminated or truncated else next_obs
        lanes.append(rows)
    return lanes


def lane_actions(lane, num_steps):
    """Actions of one lane, taken one after the other at its real steps."""
    return np.random.default_rng(100 + lane).uniform(-1, 1, (num_steps, 2)).astype(np.float32)


def _copied(obs):
    if isinstance(obs, tuple):
        return tuple(map(_copied, obs))
    return {k: _copied(v) for k, v in obs.items()} if isinstance(obs, dict) else np.array(obs)
