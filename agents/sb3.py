"""Agents of stable-baselines3 and sbx on any task with any reward, with the metrics of the agents of this package."""

import contextlib
import copy
import dataclasses
import functools
import importlib.metadata
import random
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from reward_design._names import suggestion
from reward_design._optional import require
from reward_design.agents import base, sb3_settings, sb3_spaces
from reward_design.agents.collector import HostPolicy
from reward_design.agents.host import MAX_STEPS
from reward_design.core import NonFiniteRewardError, Reward
from reward_design.describe import require_online
from reward_design.envs.base import Task
from reward_design.envs.host import HostEnv
from reward_design.envs.observations import observed_amiss


class Library(typing.NamedTuple):
    """A library of agents with stable-baselines3's interface."""

    module: str
    extra: str
    title: str
    algorithms: tuple[str, ...]
    packages: tuple[str, ...]


LIBRARIES = {
    "sb3": Library(
        "stable_baselines3", "sb3", "stable-baselines3", ("A2C", "DDPG", "DQN", "PPO", "SAC", "TD3"),
        ("stable_baselines3", "torch"),
    ),
    "sbx": Library(
        "sbx", "sbx", "sbx, stable-baselines3 in JAX", ("CrossQ", "DDPG", "DQN", "PPO", "SAC", "TD3", "TQC"),
        ("sbx-rl", "stable_baselines3"),
    ),
}  # fmt: skip
"""Families of agents by the prefix of their names."""


class Saved(typing.NamedTuple):
    """An algorithm from a file, and ``VecNormalize`` of its training, or None if it learned without."""

    model: Any
    moments: Any


@dataclasses.dataclass(frozen=True, eq=False)
class SB3Agent:
    """An agent of a library, one run per seed.

    Attributes:
        name: ``"sb3/ppo"``, as in :func:`reward_design.agents.agent`.
        description: one line.
        algorithm: the class.
        Config: frozen :class:`~reward_design.agents.sb3_settings.Settings` with the constructor's arguments and
            their defaults.
        library: where it comes from.
    """

    name: str
    description: str
    algorithm: Any
    Config: type
    library: Library

    def check(self, config: Any, task: Task, reward: Reward) -> None:
        """Refuse what the agent cannot serve.

        Raises:
            ValueError: for another gamma, a space that it does not know, or settings that its constructor refuses.
            TypeError: for a reward of kind ``TRAJECTORY``.
        """
        base.check_reward_fits(config, reward)
        if reward.learner is not None:
            raise TypeError(
                f"agent {self.name!r} does not train rewards, and {reward.name!r} has to be learned; use ppo."
            )
        require_online(reward, f"the wrapper that {self.name!r} learns through")
        sb3_spaces.check_actions(self.name, task)
        policy, _ = self.view(config, task.env.observation_space)
        with contained():
            self._constructed(config, policy, None, _init_setup_model=False)

    def view(self, config: Any, space: spaces.Space) -> tuple[str, bool]:
        """Name of the policy for an observation space, and whether it reads flattened observations."""
        policies = list(self.algorithm.policy_aliases)
        if config.policy not in ("auto", *policies):
            raise ValueError(
                f"agent {self.name!r} has no policy {config.policy!r}{suggestion(config.policy, policies)} "
                f"It has: {', '.join(policies)}."
            )
        sb3_spaces.check_policy(self.name, config.policy, space)
        policy, flat = sb3_spaces.policy(space, policies, one_hot=self.library.module == "stable_baselines3")
        if config.policy != "auto":
            policy, flat = config.policy, flat and config.policy == "MlpPolicy"
        box = flat or isinstance(space, (spaces.Box, spaces.Dict))
        if config.normalise_obs and not box:
            raise ValueError(f"normalise_obs needs observations that are arrays of numbers, got {space}; leave it out.")
        return policy, flat

    def versions(self) -> dict[str, str]:
        """Of the packages that the agent comes from."""
        return {name.replace("_", "-"): importlib.metadata.version(name) for name in self.library.packages}

    def make(self, config: Any, venv: Any, seed: int) -> Any:
        """The algorithm on a VecEnv.

        Raises:
            ValueError: for settings that its constructor refuses.
        """
        return self._constructed(config, self.view(config, venv.observation_space)[0], venv, seed=seed)

    def host_policy(self, config: Any, env: Any, state: Saved, *, deterministic: bool = False) -> HostPolicy:
        """The policy of a saved algorithm, for observations as the environment gives them."""
        _, flat = self.view(config, env.observation_space)

        def act(obs: Any, rng: np.random.Generator) -> tuple[np.ndarray, Any]:
            if flat:
                obs = sb3_spaces.flattened(env.observation_space, obs)
            if state.moments is not None:
                obs = state.moments.normalize_obs(obs)
            with contained():
                if not deterministic:
                    state.model.set_random_seed(int(rng.integers(2**31)))
                return state.model.predict(obs, deterministic=deterministic)[0], ()

        return act

    def _constructed(self, config: Any, policy: str, venv: Any, **more: Any) -> Any:
        own = copy.deepcopy(config.own)  # the libraries write into policy_kwargs
        if "buffer_size" in own:  # a larger one would never be full
            lanes = -(-config.total_timesteps // config.num_envs) + 1
            own["buffer_size"] = min(own["buffer_size"], lanes * config.num_envs)
        try:
            return self.algorithm(policy, venv, gamma=config.gamma, verbose=0, **own, **more)
        except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(sb3_settings.refusal(self.name, config, error)) from error


def agent(name: str) -> SB3Agent:
    """The agent called ``sb3/<name>`` or ``sbx/<name>``.

    Args:
        name: prefix of a library and the lower-case name of its class.

    Returns:
        The agent, always the same object.

    Raises:
        ValueError: for an unknown name, with the nearest one.
        ImportError: if the library is not installed, naming the extra.

    Example:
        >>> from reward_design.agents import sb3
        >>> ppo = sb3.agent("sb3/ppo")
        >>> ppo.Config(total_timesteps=10_000).n_steps
        2048
    """
    prefix, _, short = name.partition("/")
    known = names()
    if name not in known:
        raise ValueError(f"unknown agent {name!r}{suggestion(name, known)} Agents: {', '.join(known)}.")
    return _agent(prefix, short)


def names() -> list[str]:
    """Names of all agents of the libraries, installed or not."""
    return [f"{prefix}/{name.lower()}" for prefix, library in LIBRARIES.items() for name in library.algorithms]


def lines() -> dict[str, str]:
    """A line of text for each library, by prefix."""
    return {
        prefix: f"{library.title}: {', '.join(map(str.lower, library.algorithms))} (extra {library.extra!r})"
        for prefix, library in LIBRARIES.items()
    }


def train(
    agent: SB3Agent,
    config: Any,
    task: Task,
    reward: Reward,
    seed: int,
    *,
    on_update: Callable[[int, Mapping[str, float]], None] | None = None,
) -> base.TrainResult:
    """Train one run; the reward is paid through :class:`reward_design.adapters.sb3.VecRewardWrapper`.

    Random generators and torch's threads (one for the run) are the caller's again afterwards.

    Args:
        agent: from :func:`agent`.
        config: its settings.
        task: any task; functional ones are stepped through their gymnasium view.
        reward: any reward of kind ``POINTWISE`` or ``CAUSAL``.
        seed: of the agent, the environments and the reward.
        on_update: called with the rows of metrics so far and the last one.

    Returns:
        The algorithm as ``state``, and metrics ``[num_updates]`` as of all agents
        (:class:`reward_design.agents.base.TrainResult`).

    Raises:
        ValueError, TypeError: for what the agent cannot serve.
        NonFiniteRewardError: naming reward, term and step.
    """
    from reward_design.agents import sb3_parts

    agent.check(config, task, reward)
    with contained():
        venv, log = sb3_parts.environment(agent, config, task, reward, seed)
        with contextlib.closing(venv):
            model = agent.make(config, venv, seed)
            venv.seed(int(np.random.SeedSequence(seed).generate_state(1)[0]) // 2)
            total = config.num_updates * config.steps_per_update
            try:
                model.learn(total, callback=sb3_parts.Watch(log, on_update), log_interval=None)
            except (KeyError, ValueError, AssertionError) as error:
                problem = observed_amiss(task.env) if isinstance(task.env, HostEnv) else None
                if problem is None or isinstance(error, NonFiniteRewardError):
                    raise
                raise ValueError(problem) from error
    return base.TrainResult(model, {name: np.array([row[name] for row in log.rows]) for name in log.rows[-1]})


def train_seeds(
    agent: SB3Agent,
    config: Any,
    task: Task,
    reward: Reward,
    seeds: Sequence[int],
    *,
    on_update: Callable[[float, int, Mapping[str, float]], None] | None = None,
) -> base.TrainResult:
    """:func:`train` for each seed, one after another: metrics ``[num_seeds, num_updates]``, the algorithms as state."""

    def tick(updates: int, row: Mapping[str, float], number: int) -> None:
        if on_update is not None:
            on_update((number * config.num_updates + updates) / len(seeds), number, row)

    runs = [
        train(agent, config, task, reward, seed, on_update=functools.partial(tick, number=number))
        for number, seed in enumerate(seeds)
    ]
    metrics = {name: np.stack([run.metrics[name] for run in runs]) for name in runs[0].metrics}
    return base.TrainResult([run.state for run in runs], metrics)


def evaluate(
    agent: SB3Agent,
    config: Any,
    task: Task,
    model: Any,
    *,
    num_episodes: int = 32,
    deterministic: bool = True,
    seed: int = 0,
    moments: Any = None,
) -> dict[str, np.ndarray]:
    """Play whole episodes, judged by the environment's own reward.

    Every lane plays ``ceil(num_episodes / num_envs)`` episodes, so that short ones are not preferred. Where the task
    has no time limit, one that has not ended after ``MAX_STEPS`` is cut.

    Args:
        agent: from :func:`agent`.
        config: its settings.
        task: the task.
        model: the algorithm, as :func:`train` returns it or its ``load``.
        num_episodes: at least this many episodes.
        deterministic: the mode of the policy instead of samples.
        seed: of environments and exploration.
        moments: ``VecNormalize`` of the training, for a loaded algorithm that learned with ``normalise_obs``.

    Returns:
        ``true_return``, ``success`` and ``length`` per episode.
    """
    from reward_design.agents import sb3_parts

    moments = moments if moments is not None else model.get_vec_normalize_env()
    longest, played = task.horizon or MAX_STEPS, []
    with contained():
        venv, log = sb3_parts.environment(agent, config, task, None, seed, moments=moments, longest=longest)
        with contextlib.closing(venv):
            model.set_random_seed(seed)
            venv.seed(seed)
            for _ in range(-(-num_episodes // config.num_envs)):
                obs = venv.reset()
                firsts: dict[int, dict[str, float]] = {}
                while len(firsts) < config.num_envs:
                    obs, *_ = venv.step(model.predict(obs, deterministic=deterministic)[0])
                    firsts = dict(log.episodes) | firsts
                    log.episodes.clear()
                played += [firsts[lane] for lane in range(config.num_envs)]
    names = ("true_return", "success", "length")
    return {name: np.array([totals[name] for totals in played], np.float32) for name in names}


# --- parts ----------------------------------------------------------------------------------------------------------


@functools.cache
def _agent(prefix: str, short: str) -> SB3Agent:
    library = LIBRARIES[prefix]
    module = require(library.module, library.extra, f"agents {prefix}/<name>")
    algorithm = getattr(module, next(name for name in library.algorithms if name.lower() == short))
    description = f"{algorithm.__name__} of {library.title}"
    return SB3Agent(f"{prefix}/{short}", description, algorithm, sb3_settings.config(algorithm), library)


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """One thread for torch (the fastest for small networks) and seeds that are nobody else's, within the block."""
    import torch

    threads, python, numpy = torch.get_num_threads(), random.getstate(), np.random.get_state()  # noqa: NPY002
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
