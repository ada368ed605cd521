"""The command ``reward-design``: compare, train, play, distance, audit and more. Heavy imports wait for a command."""

import dataclasses
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from tyro.conf import FlagCreatePairsOff, arg, subcommand

from reward_design._interrupts import interruptible
from reward_design.cli_design import Design
from reward_design.experiments.commands import Board, Export, Merge, Migrate, Report
from reward_design.experiments.distance_commands import Audit, Distance
from reward_design.experiments.search_commands import Search
from reward_design.llm.commands import Llm

_TRACEBACK = "REWARD_DESIGN_TRACEBACK"
_OF_SUITES = (
    *("task", "rewards", "auxiliary", "agent", "seeds", "total_timesteps", "set", "overwrite"),
    *("factors", "margins", "extend"),
)
"""Settings of `compare` that a suite does without."""


@dataclass(frozen=True)
class Compare:
    """Train with several reward designs on several tasks, judge them by the true return, write a report.

    What is finished is kept in --out and not computed again: after an interrupt, run the same command again.

    For example, the designs of the package on one task, and one of your own on two tasks:

      reward-design compare --task four_rooms --rewards sparse shaping misaligned --seeds 6

      reward-design compare --task four_rooms key_door --rewards sparse my_module:my_reward --out results/mine

      reward-design compare --suite core --size smoke --out results/suite
    """

    task: Annotated[tuple[str, ...], arg(aliases=["--tasks"], metavar="NAME [NAME ...]")] = ()
    """Names of tasks (see `reward-design list`)."""
    suite: Annotated[str | None, arg(metavar="NAME")] = None
    """In place of tasks, designs, agent and seeds: a suite that declares all (`core`), or a .toml file."""
    size: str = "smoke"
    """Of the suite: smoke takes minutes, core a night, full a cluster."""
    rewards: Annotated[tuple[str, ...], arg(aliases=["--reward"], metavar="NAME [NAME ...]")] = (
        "sparse",
        "dense",
        "shaping",
        "misaligned",
    )
    """Names of designs (see `reward-design list`), or your own as module:attribute: a Reward, or a function that takes
    the task and returns one. Modules of the current folder are found. A designed reward is given as FILE.reward."""
    auxiliary: Annotated[str | None, arg(metavar="NAME")] = None
    """Auxiliary reward of the tasks for the designs `barfi` and `naive`; short for `barfi/NAME` and `naive/NAME`."""
    agent: str = "ppo"
    """Name of the agent that learns; the design `barfi` brings its own."""
    seeds: int = 20
    """Runs per task and design, with the seeds 0, 1, 2, ..."""
    out: str = "results/compare"
    """Folder for the records and the report."""
    total_timesteps: int | None = None
    """Environment steps of each run; by default what suits the task."""
    set: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE [NAME=VALUE ...]")] = ()
    """Settings of the agent, as name=value, for example learning_rate=3e-4 hidden=64,64."""
    overwrite: bool = False
    """Delete what --out holds of another comparison."""
    factors: Annotated[str | None, arg(metavar="NAME,NAME,...")] = None
    """Factors of the task that the reward `heron` ranks, the most important one first."""
    margins: Annotated[str | None, arg(metavar="NUMBER,NUMBER,...")] = None
    """Differences of the factors that decide nothing, in standard deviations."""
    extend: bool = False
    """Add tasks and designs to the comparison that --out holds."""
    executor: str = "here"
    """Where units are trained: `here`, one after the other on all cores; `processes`, several at a time; `ray`."""
    workers: int | None = None
    """Worker processes of --executor processes, 2 unless said otherwise."""
    address: Annotated[str | None, arg(metavar="HOST:PORT")] = None
    """Cluster of --executor ray: `auto`, or host:port; without it one is started on this machine."""
    log: Annotated[tuple[str, ...], arg(metavar="NAME [NAME ...]")] = ()
    """Also write logs into --out: `tensorboard`, `wandb` (offline; `wandb sync` sends them)."""
    quiet: bool = False
    """No progress bar."""

    def run(self, command: str) -> int:
        """Run, print the table and the place of the report; 1 if a run failed."""
        from reward_design.agents import use_all_cores

        use_all_cores()
        from reward_design.experiments import budgets, compare, executors, terminal
        from reward_design.experiments.ranked_design import with_ranking

        executor = executors.executor(self.executor, workers=self.workers, address=self.address)
        if self.suite is not None:
            return self._run_suite(executor, command)
        if self.size != "smoke":
            raise ValueError(f"--size is one of a suite, got --size {self.size} without --suite; leave it out.")
        if not self.task:
            raise ValueError("expected tasks to compare designs on; name them with --task, or a suite with --suite.")
        rewards = with_ranking(self.rewards, self.factors, self.margins)
        results = compare(
            list(self.task), list(rewards), auxiliary=self.auxiliary, agent=self.agent, seeds=self.seeds,
            out=self.out, total_timesteps=self.total_timesteps, config=budgets.assignments(self.set),
            overwrite=self.overwrite, extend=self.extend, progress=not self.quiet, command=command,
            executor=executor, log=self.log,
        )  # fmt: skip
        terminal.show(results)
        return 1 if results.failed else 0

    def _run_suite(self, executor: Any, command: str) -> int:
        from reward_design.experiments import suites, terminal

        fields = {field.name: field.default for field in dataclasses.fields(self)}
        if given := [f"--{name.replace('_', '-')}" for name in _OF_SUITES if getattr(self, name) != fields[name]]:
            raise ValueError(
                f"{', '.join(given)} cannot go with --suite, which declares tasks, designs, agents, seeds and lengths; "
                "leave one of them out."
            )
        suite = suites.load_suite(self.suite or "", self.size)
        judged = suites.compare_suite(
            suite, out=self.out, executor=executor, progress=not self.quiet, command=command, log=self.log
        )
        terminal.show_suite(judged)
        return 1 if any(found.failed for found in judged.results.values()) else 0


@dataclass(frozen=True)
class Train:
    """Train one agent with one reward on one task, with a line per evaluation.

    With --out every evaluation also leaves a checkpoint of everything (agent, optimiser, reward, environments, random
    state): the same command goes on from the last one and gives the numbers of an uninterrupted run.

    For example:

      reward-design train --task mountain_car --reward shaping

      reward-design train --task cartpole --reward my_module:my_reward --out results/cartpole --set learning_rate=3e-4
    """

    task: str
    """Name of a task (see `reward-design list`)."""
    reward: Annotated[str, arg(aliases=["--rewards"])] = "environment"
    """Name of a design, your own as module:attribute, or a designed reward as FILE.reward."""
    auxiliary: Annotated[str | None, arg(metavar="NAME")] = None
    """Auxiliary reward of the task for the designs `barfi` and `naive`; short for `barfi/NAME` and `naive/NAME`."""
    agent: str = "ppo"
    """Name of the agent that learns; the design `barfi` brings its own."""
    seed: int = 0
    """Seed of the run."""
    out: str | None = None
    """Folder for checkpoints and records; none are kept without it."""
    total_timesteps: int | None = None
    """Environment steps; by default what suits the task."""
    evaluations: int = 20
    """Lines to print (about)."""
    set: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE [NAME=VALUE ...]")] = ()
    """Settings of the agent, as name=value."""
    factors: Annotated[str | None, arg(metavar="NAME,NAME,...")] = None
    """Factors of the task that the reward `heron` ranks, the most important one first."""
    margins: Annotated[str | None, arg(metavar="NUMBER,NUMBER,...")] = None
    """Differences of the factors that decide nothing, in standard deviations."""
    log: Annotated[tuple[str, ...], arg(metavar="NAME [NAME ...]")] = ()
    """Also write logs into --out: `tensorboard`, `wandb` (offline; `wandb sync` sends them)."""
    overwrite: bool = False
    """Start anew: delete what --out holds."""

    @property
    def goes_on(self) -> bool:
        """Whether there are checkpoints to go on from: agents of other libraries start anew."""
        return "/" not in self.agent

    def run(self, command: str) -> int:
        """Train, print a line per evaluation."""
        from reward_design.agents import use_all_cores

        use_all_cores()
        from reward_design.experiments import budgets, single
        from reward_design.experiments.ranked_design import with_ranking

        config = budgets.assignments(self.set)
        (reward,) = with_ranking((self.reward,), self.factors, self.margins)
        single.train(
            self.task, reward, auxiliary=self.auxiliary, agent=self.agent, seed=self.seed, out=self.out,
            overwrite=self.overwrite, total_timesteps=self.total_timesteps, config=config,
            evaluations=self.evaluations, command=command, log=self.log,
        )  # fmt: skip
        return 0


@dataclass(frozen=True)
class Play:
    """Play episodes of a trained policy, with a line for each, and film them if --video is given.

    What was paid is shown twice: by the task's own reward, and by the reward that the policy was trained on.

    For example, a run of `reward-design train --out results/cartpole`, then random actions with a reward of your own:

      reward-design play --run results/cartpole --episodes 3 --video cartpole.mp4

      reward-design play --task four_rooms --random --reward my_module:my_reward --terminal
    """

    folder: Annotated[str | None, arg(name="run", metavar="FOLDER")] = None
    """What `reward-design train --out` left, finished or not, or a policy of reward_design.agents.save_policy."""
    task: Annotated[str | None, arg(metavar="NAME")] = None
    """Name of a task, with --random, or where a saved policy does not know its task."""
    random: bool = False
    """Play random actions instead of a policy."""
    reward: str | None = None
    """Design, your own as module:attribute, or FILE.reward, to show as shaped reward; by default that of the run."""
    episodes: int = 5
    """How many to play."""
    seed: int = 0
    """Seed of the environment and of random actions."""
    stochastic: bool = False
    """Sample actions instead of taking the policy's best."""
    video: Annotated[str | None, arg(metavar="FILE")] = None
    """File to write, ending in .mp4 or .gif."""
    fps: float | None = None
    """Frames per second; by default what suits the task."""
    terminal: bool = False
    """Print frames here, for tasks with pictures in text: grids, MiniHack."""

    def run(self, command: str) -> int:
        """Play, print a line per episode and the means."""
        from reward_design.envs import mujoco_gl

        mujoco_gl.guard()
        from reward_design.experiments import playing

        policy, task = playing.found(self.folder, self.task, random=self.random)
        playing.play(
            policy, random=self.random, task=task, reward=self.reward, episodes=self.episodes, seed=self.seed,
            video=self.video, deterministic=not self.stochastic, fps=self.fps, terminal=self.terminal,
        )  # fmt: skip
        return 0


@dataclass(frozen=True)
class List:
    """Name the tasks, reward designs and agents, with a line of text each."""

    family: Annotated[str | None, arg(metavar="NAME")] = None
    """Name every task of one family of environments instead: mujoco, minihack, robotics, minigrid, mjx, gymnax or
    gymnasium."""

    def run(self, command: str) -> int:
        """Print the lists."""
        from reward_design.experiments import terminal

        terminal.show_names(self.family)
        return 0


COMMANDS: dict[str, type] = {
    "compare": Compare, "train": Train, "play": Play, "distance": Distance, "audit": Audit, "list": List,
    "report": Report, "merge": Merge, "export": Export, "migrate": Migrate, "llm": Llm, "design": Design,
    "search": Search, "board": Board,
}  # fmt: skip
_Overview = (
    Annotated[Compare, subcommand("compare", description="train with several reward designs on tasks, write a report")]
    | Annotated[Train, subcommand("train", description="train one agent with one reward on one task")]
    | Annotated[Play, subcommand("play", description="play episodes of a trained policy, make a video")]
    | Annotated[Distance, subcommand("distance", description="measure how far designs are from the task, untrained")]
    | Annotated[Audit, subcommand("audit", description="ask whether a design is still the task, write a page")]
    | Annotated[List, subcommand("list", description="name the tasks, reward designs and agents")]
    | Annotated[Report, subcommand("report", description="write the report again from the records")]
    | Annotated[Merge, subcommand("merge", description="put the comparisons of several machines into one folder")]
    | Annotated[Search, subcommand("search", description="search for the settings with which a design does best")]
    | Annotated[Export, subcommand("export", description="write results as CSV or Parquet")]
    | Annotated[Migrate, subcommand("migrate", description="bring records of an older version into today's format")]
    | Annotated[Design, subcommand("design", description="let a language model design a reward, and compare it")]
    | Annotated[Board, subcommand("board", description="show a folder of results in the browser while it is written")]
    | Annotated[Llm, subcommand("llm", description="ask a language model, or serve the embedded one")]
)

DESCRIPTION = """Rewards for reinforcement learning: written once, compared by what they lead to.

Start with:  reward-design compare --task four_rooms --rewards sparse shaping misaligned --seeds 6"""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: words after the program's name; by default those of the process.

    Returns:
        0; 1 if a run failed; 2 for a request that cannot be met; 130 after Ctrl-C, 143 after SIGTERM.

    Example:
        >>> main(["report", "a/folder/without/records"])
        2
    """
    words = list(sys.argv[1:] if args is None else args)
    command = _parsed(words)
    stopped_by: list[int] = []
    try:
        with interruptible() as stopped_by:
            return command.run(shlex.join(["reward-design", *words]))
    except KeyboardInterrupt:
        out = getattr(command, "out", None)
        kept = out and getattr(command, "goes_on", True)
        kept = f" What is finished is kept in {out}; run the same command again to go on." if kept else ""
        print(f"\nInterrupted.{kept}", file=sys.stderr)
        return 128 + (stopped_by[0] if stopped_by else signal.SIGINT)
    except (ValueError, TypeError, ImportError, OSError, FloatingPointError) as error:
        if os.environ.get(_TRACEBACK):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, FloatingPointError) else 2


def _parsed(words: list[str]) -> Any:
    """The command with its settings. The help of one command has its whole text, the overview a line for each."""
    config = (FlagCreatePairsOff,)
    if words and words[0] in COMMANDS:
        return tyro.cli(COMMANDS[words[0]], prog=f"reward-design {words[0]}", args=words[1:], config=config)
    return tyro.cli(_Overview, prog="reward-design", description=DESCRIPTION, args=words, config=config)


if __name__ == "__main__":
    sys.exit(main())
