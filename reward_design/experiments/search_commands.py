"""The command ``reward-design search``."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg


@dataclass(frozen=True)
class Search:
    """Search for the settings with which a reward design and an agent do best, judged by the true return.

    Each trial trains with all seeds and is kept in --out: after an interrupt, run the same command again; with more
    --trials it goes on. Needs the extra `tune`.

    For example:

      reward-design search --task chain --reward misaligned --space agent.learning_rate=log:1e-4,1e-2 auxiliary=0,1
    """

    task: str
    """Name of a task (see `reward-design list`)."""
    space: Annotated[tuple[str, ...], arg(metavar="NAME=LOW,HIGH [NAME=LOW,HIGH ...]")]
    """What to change: agent.<setting>, or a number among the parameters of the reward; log:LOW,HIGH for logarithms."""
    reward: Annotated[str, arg(aliases=["--rewards"])] = "sparse"
    """Name of a design, your own as module:attribute, or a designed reward as FILE.reward."""
    trials: int = 20
    """Settings to try, those that --out has already included."""
    seeds: int = 3
    """Runs per trial, with the seeds 0, 1, 2, ..."""
    agent: str = "ppo"
    """Name of the agent that learns; the design `barfi` brings its own."""
    objective: str = "true_return"
    """What to maximise: true_return or success, over the last tenth of training."""
    batch: int | None = None
    """Trials proposed at a time; by default as many as --executor trains at once (1 with ray)."""
    sampler_seed: int = 0
    """Seed of the proposals."""
    out: str = "results/search"
    """Folder for the records, the table and the picture of the trials."""
    total_timesteps: int | None = None
    """Environment steps of each run; by default what suits the task."""
    set: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE [NAME=VALUE ...]")] = ()
    """Settings of the agent that stay, as name=value."""
    overwrite: bool = False
    """Delete what --out holds of another search."""
    executor: str = "here"
    """Where trials are trained: `here`, one after the other on all cores; `processes`, several at a time; `ray`."""
    workers: int | None = None
    """Worker processes of --executor processes, 2 unless said otherwise."""
    address: Annotated[str | None, arg(metavar="HOST:PORT")] = None
    """Cluster of --executor ray: `auto`, or host:port; without it one is started on this machine."""
    quiet: bool = False
    """No progress bar."""

    def run(self, command: str) -> int:
        """Search, print the best trials; 1 if none came to an end."""
        from reward_design.agents import use_all_cores

        use_all_cores()
        from reward_design.experiments import budgets, executors, search, search_output, space, terminal

        executor = executors.executor(self.executor, workers=self.workers, address=self.address)
        at_once = executor.num_workers if isinstance(executor, executors.Processes) else 1
        found = search(
            self.task, self.reward, space=space.assignments(self.space), trials=self.trials, seeds=self.seeds,
            agent=self.agent, objective=self.objective, sampler_seed=self.sampler_seed, out=self.out,
            batch=at_once if self.batch is None else self.batch,
            total_timesteps=self.total_timesteps, config=budgets.assignments(self.set), overwrite=self.overwrite,
            progress=not self.quiet, command=command, executor=executor,
        )  # fmt: skip
        search_output.show(found, self.out, terminal.console())
        return 1 if all(trial.value is None for trial in found.trials) else 0
