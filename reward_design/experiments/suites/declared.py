"""What a suite file says, checked name by name before anything runs."""

import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reward_design import envs
from reward_design._names import suggestion
from reward_design.agents import agent as find_agent
from reward_design.agents import sb3
from reward_design.experiments import budgets, designs
from reward_design.experiments.suites import kinds

FOLDER = Path(__file__).parent
_SIZE_KEYS = ("seeds", "steps", "max_steps")
_BLOCK_KEYS = ("tasks", "rewards", "agent", "sizes")


@dataclass(frozen=True)
class Block:
    """One comparison of a suite in one size.

    Attributes:
        name: of its folder.
        tasks: names.
        rewards: names of designs, ``module:attribute``, or names under ``[files]``.
        files: patterns of the paths of designed rewards, by name; ``{task}`` stands for the task.
        agent: that learns, where a design brings none.
        seeds: runs per task and design.
        steps: share of each task's budget.
        max_steps: at most that many environment steps per run, None for no limit.
    """

    name: str
    tasks: tuple[str, ...]
    rewards: tuple[str, ...]
    agent: str
    seeds: int
    steps: float
    max_steps: int | None
    files: Mapping[str, str] = field(default_factory=dict)

    def designs(self, task: str) -> dict[str, str]:
        """The designs by name, as :func:`reward_design.experiments.compare` takes them."""
        return {name: _path(self.files, name, task) for name in self.rewards}

    def total_timesteps(self, task: str) -> int | None:
        """Environment steps of a run, None for the whole budget of the task; at least one update."""
        settings = budgets.settings(find_agent(self.agent), envs.task(task))
        wanted = int(settings.total_timesteps * self.steps)
        wanted = min(wanted, self.max_steps) if self.max_steps else wanted
        if wanted >= settings.total_timesteps:
            return None
        other = isinstance(find_agent(self.agent), sb3.SB3Agent)
        return max(wanted, settings.steps_per_rollout if other else settings.steps_per_update)


@dataclass(frozen=True)
class Suite:
    """A suite in one size.

    Attributes:
        name: of the suite, or of its file.
        size: of the suite.
        description: one line.
        blocks: its comparisons.
    """

    name: str
    size: str
    description: str
    blocks: tuple[Block, ...]

    @property
    def num_runs(self) -> int:
        """Trained agents."""
        return sum(len(b.tasks) * len(b.rewards) * b.seeds for b in self.blocks)


def list_suites() -> tuple[str, ...]:
    """Names of the suites that come with the package.

    Example:
        >>> list_suites()
        ('core',)
    """
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load_suite(suite: str | os.PathLike[str], size: str = "smoke") -> Suite:
    """Read a suite by its name, or from a file that ends in ``.toml``.

    Args:
        suite: a name of :func:`list_suites`, or a path.
        size: one of the sizes that it declares.

    Raises:
        ValueError: for a name that nothing has (suite, size, task, design, agent, key), with the nearest one.

    Example:
        >>> tuple(block.name for block in load_suite("core", "smoke").blocks)
        ('quick', 'host')
    """
    path = Path(suite) if str(suite).endswith(".toml") else FOLDER / f"{suite}.toml"
    if not path.is_file():
        known = list_suites()
        if str(suite).endswith(".toml"):
            near = suggestion(path.name, (found.name for found in path.parent.glob("*.toml")))
            raise ValueError(f"there is no file {str(path)!r}{near} Suites by name: {', '.join(known)}.")
        raise ValueError(
            f"unknown suite {str(suite)!r}{suggestion(str(suite), known)} Known: {', '.join(known)}, or a file that "
            "ends in .toml."
        )
    try:
        text = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is not valid TOML: {error}.") from error
    _known("key", text, ("description", "sizes", "files", "blocks"), path.name)
    sizes = kinds.table(text.get("sizes", {}), f"{path.name}, [sizes]")
    if not sizes:
        raise ValueError(f"{path.name} declares no sizes; add one, as in smoke = {{ seeds = 2 }} under [sizes].")
    if size not in sizes:
        raise ValueError(f"{path.name} has no size {size!r}{suggestion(size, sizes)} It has: {', '.join(sizes)}.")
    about = kinds.text(text.get("description", ""), f"{path.name}, description")
    files = _files(path, kinds.table(text.get("files", {}), f"{path.name}, [files]"))
    blocks = kinds.table(text.get("blocks", {}), f"{path.name}, [blocks]")
    # All are checked, also those that this size leaves out.
    everything = [_block(path.name, name, declared, sizes, size, files) for name, declared in blocks.items()]
    blocks = tuple(block for block in everything if block is not None)
    if not blocks:
        raise ValueError(f"{path.name} has no block of size {size!r}; add one under [blocks.NAME].")
    return Suite(path.stem, size, about, blocks)


def folder(name: str) -> str:
    """Where the comparison ``block/task`` lies in the folder of a suite.

    Example:
        >>> folder("host/minihack/Room-5x5")
        'host/minihack-Room-5x5'
    """
    block, _, task = name.partition("/")
    return f"{block}/{task.replace('/', '-')}"


def _files(suite: Path, declared: Mapping[str, Any]) -> dict[str, str]:
    """Patterns of paths by name, from the folder of the suite."""
    for name, pattern in declared.items():
        if name in designs.DESIGNS or not (isinstance(pattern, str) and designs.is_file(pattern)):
            raise ValueError(
                f"{suite.name}, [files]: expected a name that no design has and a path that ends in .reward, as in "
                f'mine = "rewards/{{task}}.reward"; got {name} = {pattern!r}.'
            )
    return {name: str(suite.parent / pattern) for name, pattern in declared.items()}


def _path(files: Mapping[str, str], reward: str, task: str) -> str:
    return files[reward].replace("{task}", task.replace("/", "-")) if reward in files else reward


def _block(
    file: str,
    name: str,
    declared: Any,
    sizes: Mapping[str, Any],
    size: str,
    files: Mapping[str, str],
) -> Block | None:
    where = f"{file}, block {name!r}"
    _known("key", kinds.table(declared, where), (*_BLOCK_KEYS, *sizes), where)
    for key in ("tasks", "rewards"):
        kinds.names(declared.get(key, []), f"{where}, {key}")
    wanted = kinds.names(declared.get("sizes", list(sizes)), f"{where}, sizes")
    _known("size", wanted, sizes, where)
    agent, used = kinds.text(declared.get("agent", "ppo"), f"{where}, agent"), size in wanted
    settings = {**kinds.table(sizes[size], f"{file}, size {size!r}"), **kinds.table(declared.get(size, {}), where)}
    _known("setting", settings, _SIZE_KEYS, where)
    for key, value in settings.items():
        kinds.setting(key, value, where)
    try:
        _build(declared["tasks"], declared["rewards"], agent, files)
    except (ValueError, OSError) as error:
        raise ValueError(f"{where}: {error}") from error
    except ImportError:  # of a simulator that is not installed
        if used:
            raise
    if not used:
        return None
    return Block(
        name, tuple(declared["tasks"]), tuple(declared["rewards"]), agent, settings.get("seeds", 1),
        settings.get("steps", 1.0), settings.get("max_steps"), files,
    )  # fmt: skip


def _build(tasks: Iterable[str], rewards: Iterable[str], agent: str, files: Mapping[str, str]) -> None:
    """Everything that a block names, so that what cannot be built is known before anything runs."""
    find_agent(agent)
    for name in tasks:
        task = envs.task(name)
        for reward in rewards:
            designs.resolve(_path(files, reward, name), task)


def _known(what: str, given: Iterable[str], options: Iterable[str], where: str) -> None:
    options = tuple(options)
    for name in given:
        if name not in options:
            raise ValueError(
                f"{where}: unknown {what} {name!r}{suggestion(name, options)} Known: {', '.join(options)}."
            )
