"""Clips for a person to compare: what happened, and how it looked."""

import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from reward_design.core import Transition


class Clip(NamedTuple):
    """Some steps of one episode.

    Attributes:
        transition: leaves ``[T, ...]`` of NumPy.
        frames: ``T + 1`` pictures ``[height, width, 3]`` uint8.
    """

    transition: Transition
    frames: Sequence[np.ndarray]


def record_clips(
    env: gymnasium.Env,
    policy: Callable[[Any], Any] | None = None,
    *,
    num_clips: int,
    length: int,
    seed: int = 0,
) -> list[Clip]:
    """Play an environment and cut what happens into clips, none of which crosses the end of an episode.

    A clip that a time limit cut short is left out, as in learning beside an agent, unless it is a whole episode.

    Args:
        env: made with ``render_mode="rgb_array"``, as ``task.make(render_mode="rgb_array")``.
        policy: ``obs -> action``; random actions if left out.
        num_clips: how many.
        length: steps of a clip, at least 1; fewer where an episode terminates.
        seed: of the environment and of random actions.

    Returns:
        Clips in the order in which they were played.

    Raises:
        ValueError: for an environment without pictures, or numbers below 1.

    Example:
        >>> from reward_design.envs import task
        >>> clips = record_clips(task("four_rooms").make(render_mode="rgb_array"), num_clips=2, length=5)
        >>> [len(clip.frames) for clip in clips]
        [6, 6]
    """
    if env.render_mode != "rgb_array":
        raise ValueError(f"clips need an environment with render_mode='rgb_array', got {env.render_mode!r}.")
    if num_clips < 1 or length < 1:
        raise ValueError(f"num_clips and length must be at least 1, got {num_clips} and {length}.")
    env.action_space.seed(seed)
    choose = policy or (lambda obs: env.action_space.sample())
    clips: list[Clip] = []
    obs, whole = env.reset(seed=seed)[0], True
    while len(clips) < num_clips:
        clip, obs, done = _played(env, choose, obs, length)
        terminated = bool(clip.transition.terminated[-1])
        if len(clip.frames) == length + 1 or terminated or whole:
            clips.append(clip)
        whole = done
        if done:
            obs = env.reset()[0]
    return clips


def _played(env: gymnasium.Env, choose: Callable[[Any], Any], obs: Any, length: int) -> tuple[Clip, Any, bool]:
    """Up to ``length`` steps, the observation after them, and whether the episode ended."""
    frames, steps, done = [_frame(env)], [], False
    while len(steps) < length and not done:
        action = choose(obs)
        next_obs, reward, terminated, truncated, info = env.step(action)
        done = bool(terminated or truncated)
        numbers = {k: np.asarray(v) for k, v in info.items() if np.asarray(v).dtype.kind in "biuf"}
        flags = (np.bool_(terminated), np.bool_(truncated and not terminated), np.bool_(True))
        steps.append(Transition(obs, np.asarray(action), next_obs, np.float32(reward), *flags, numbers))
        frames.append(_frame(env))
        obs = next_obs
    shared = set.intersection(*(set(step.info) for step in steps))
    steps = [step._replace(info={k: v for k, v in step.info.items() if k in shared}) for step in steps]
    return Clip(jax.tree.map(lambda *leaves: np.stack(leaves), *steps), frames), obs, done


def _frame(env: gymnasium.Env) -> np.ndarray:
    return np.array(env.render(), np.uint8)


def animation(frames: Sequence[np.ndarray], *, fps: float | int = 12.0, width: int = 320) -> bytes:
    """Pictures as a GIF that repeats, with a pause at the end; small ones are enlarged to about ``width`` pixels.

    Args:
        frames: ``[height, width, 3]`` uint8.
        fps: pictures per second.
        width: in pixels.

    Returns:
        The bytes of the file.
    """
    times = max(1, round(width / frames[0].shape[1]))
    images = [Image.fromarray(frame) for frame in frames]
    images = [i.resize((i.width * times, i.height * times), Image.Resampling.NEAREST) for i in images]
    step = round(1000 / fps)
    file = io.BytesIO()
    images[0].save(
        file, "GIF", save_all=True, append_images=images[1:], loop=0, duration=[step] * (len(images) - 1) + [800]
    )
    return file.getvalue()


def stacked(clips: Sequence[Clip]) -> Transition:
    """Clips as lanes ``[T, N]`` of a trajectory; the steps that short ones lack are masked."""
    longest = max(len(clip.transition.reward) for clip in clips)

    def padded(*leaves: Any) -> Any:
        rows = [np.concatenate([x, np.zeros((longest - len(x), *x.shape[1:]), x.dtype)]) for x in leaves]
        return jnp.asarray(np.stack(rows, axis=1))

    return jax.tree.map(padded, *(clip.transition for clip in clips))
