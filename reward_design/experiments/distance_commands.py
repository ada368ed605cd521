"""Commands of ``reward-design`` that judge designs before any training: distances and the audit."""

from dataclasses import dataclass, replace
from typing import Annotated

from tyro.conf import arg


@dataclass(frozen=True)
class Distance:
    """Measure how far designs are from the task and from each other, without training.

    Exact on tabular tasks, with regret and worst-case regret; elsewhere from samples, with 95 % intervals. With --out a
    folder gets distances.json and distances.svg, a heat map beside a dendrogram.

    For example:

      reward-design distance --task four_rooms --rewards sparse dense shaping misaligned --out results/distances
    """

    task: Annotated[str, arg(metavar="NAME")]
    """Name of a task (see `reward-design list`)."""
    rewards: Annotated[tuple[str, ...], arg(aliases=["--reward"], metavar="NAME [NAME ...]")] = (
        "sparse",
        "dense",
        "shaping",
        "misaligned",
    )
    """Names of designs, your own as module:attribute, or designed rewards as FILE.reward."""
    canonicalisation: str | None = None
    """val, minimal, minimal_weighted, val_potential, minimal_potential, epic, dard or none. By default val on tabular
    tasks, and minimal_weighted on samples, where only the two are offered (val needs many more samples)."""
    norm: str | None = None
    """Both norms: 1, 2, inf, weighted_1, weighted_2 or weighted_inf. By default 2, and on samples weighted_2, the only
    one there."""
    gamma: float | None = None
    """Discount per step; by default the task's."""
    samples: int = 4000
    """Samples, where the task has no exact dynamics."""
    seed: int = 0
    """Seed of the samples."""
    out: str | None = None
    """Folder for distances.json and distances.svg."""
    json: bool = False
    """Print the numbers as JSON in place of the table."""
    goes_on = False  # all is written at the end

    def run(self, command: str) -> int:
        """Measure, print, write."""
        from json import dumps

        from reward_design.envs import task as find
        from reward_design.experiments import designs, distance_table, terminal

        task = find(self.task)
        labels = designs.labelled(self.rewards)
        rewards = {name: designs.resolve_fixed(design, task) for name, design in labels.items()}
        norm = int(self.norm) if self.norm and self.norm.isdigit() else self.norm
        found = distance_table.measure(
            task, rewards, gamma=self.gamma, canonicalisation=self.canonicalisation, norm=norm,
            num_samples=self.samples, seed=self.seed,
        )  # fmt: skip
        written = distance_table.write(found, self.out) if self.out else []
        if self.json:
            print(dumps(found.record()))
            return 0
        terminal.console().print(distance_table.table(found))
        for line in (*found.notes, *written):
            print(line)
        return 0


@dataclass(frozen=True)
class Audit:
    """Ask whether a design is still the task: distance, what the difference is made of, who exploits it.

    Prints the verdict and every check with its numbers, and writes one HTML page with the episodes that show the worst
    case (pictures on grids, clips elsewhere).

    For example:

      reward-design audit --task four_rooms --reward misaligned

      reward-design audit --task mujoco/Reacher --reward my_module:my_reward --out results/audit
    """

    task: Annotated[str, arg(metavar="NAME")]
    """Name of a task (see `reward-design list`)."""
    reward: Annotated[str, arg(aliases=["--rewards"])]
    """Name of a design, your own as module:attribute, or a designed reward as FILE.reward."""
    gamma: float | None = None
    """Discount per step; by default the task's."""
    samples: int = 4000
    """Samples, where the task has no exact dynamics."""
    seed: int = 0
    """Seed of samples and policy search."""
    out: str = "results/audit"
    """Folder for the page."""
    goes_on = False  # the page is written at the end

    def run(self, command: str) -> int:
        """Audit, print, write the page."""
        from reward_design.envs import mujoco_gl

        mujoco_gl.guard()
        from reward_design.distance import audit
        from reward_design.envs import task as find
        from reward_design.experiments import audit_page, designs

        task = find(self.task)
        reward = designs.resolve_fixed(self.reward, task)
        found = audit(task, reward, gamma=self.gamma, num_samples=self.samples, seed=self.seed)
        found = replace(found, reward=self.reward)
        print(found)
        print(f"\nPage: {audit_page.write(found, task, reward, self.out).resolve()}")
        return 0
