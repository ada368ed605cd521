"""The command ``reward-design design``. Heavy imports wait for its run."""

import time
from dataclasses import dataclass
from typing import Annotated, Any

from tyro.conf import arg

from reward_design._names import suggestion
from reward_design.llm.commands import limits, of_command


@dataclass(frozen=True)
class Design:
    """Let a language model design a reward: candidates are checked, trained, and improved on, round after round.

    Everything is kept in --out as soon as it is done: after an interrupt, run the same command again. At the end the
    best reward is compared, on fresh seeds, with the sparse and the hand-made reward and with a random search of equal
    size. It lies in --out as best.reward, which every --reward takes.

    For example, with the small model that needs no network, and with one of an OpenAI-compatible server:

      reward-design design --task four_rooms --preset eureka --model embedded

      reward-design design --task mujoco/InvertedPendulum --agent sac --preset card --model my-model --base-url URL
    """

    task: Annotated[str, arg(metavar="NAME")]
    """Name of a task (see `reward-design list`)."""
    preset: str = "eureka"
    """eureka, auto-mc-reward, l2r, icpl, card, orso, revolve, or random: the control without a model."""
    model: str = "embedded"
    """embedded, a *.gguf file, or the name of a model on a server."""
    base_url: Annotated[str | None, arg(metavar="URL")] = None
    """Address of an OpenAI-compatible server, up to /v1."""
    key_env: str = "OPENAI_API_KEY"
    """Environment variable with its key."""
    temperature: float = 1.0
    """Of the model."""
    max_tokens: int = 1024
    """Of an answer."""
    language: str | None = None
    """code or terms; by default that of the preset, terms for the embedded model."""
    rounds: int = 3
    """How many."""
    candidates: int | None = None
    """Executable candidates of a round; by default that of the preset."""
    seeds: int = 3
    """Runs of each candidate."""
    total_timesteps: int | None = None
    """Environment steps of each run; by default what suits the task."""
    agent: str = "ppo"
    """Name of the agent that learns."""
    driver: str = "rl"
    """rl: the agent learns from each candidate; mpc: predictive sampling plans with it (MuJoCo tasks), as in l2r."""
    set: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE [NAME=VALUE ...]")] = ()
    """Settings of the agent, or of the planner, as name=value."""
    calls: int | None = None
    """Limit on requests to the model; 20 for each candidate that is wanted if no limit is given."""
    tokens: int | None = None
    """Limit on tokens."""
    money: float | None = None
    """Limit on what the model may cost; needs --price."""
    price: Annotated[tuple[float, float, str] | None, arg(metavar="PROMPT ANSWER DATE")] = None
    """Of a million tokens of prompt, of answer, and the day when you looked them up: --price 2.0 8.0 2026-11-26."""
    seconds: float | None = None
    """Limit on wall time, from the first request on."""
    cache: Annotated[str | None, arg(metavar="FOLDER")] = None
    """Recorded answers; by default the folder answers in --out."""
    mode: str = "record"
    """record asks for what is not in --cache and keeps it; replay asks nothing, what is not there is an error; refresh
    asks for all anew."""
    audits: str = "exact"
    """Which candidates get a distance and an audit: exact (on tabular tasks), sampled (on all), none."""
    time_limit: float = 10.0
    """Seconds for the checks of a candidate."""
    min_isolation: str = "confined"
    """Lowest isolation of a candidate in the language code: process, confined, isolated."""
    person: bool = False
    """You compare the candidates of every round on a local page with clips (presets icpl and revolve; with revolve the
    model also reads what you say in words)."""
    questions: int | None = None
    """With --person, pairs of a round that you are asked about; all of them by default."""
    final_seeds: int = 5
    """Fresh seeds of the comparison at the end; 0 for none."""
    seed: int = 0
    """Of all that is drawn."""
    out: str = "results/design"
    """Folder for everything."""
    overwrite: bool = False
    """Delete what --out holds of another search."""
    quiet: bool = False
    """No lines while it runs."""

    def run(self, command: str) -> int:
        """Search, compare, write the page; 1 if no candidate was trained."""
        from reward_design.agents import use_all_cores
        from reward_design.agents.settings import at_least

        use_all_cores()
        at_least(self, 0, "final_seeds")
        from reward_design.envs import task as find
        from reward_design.experiments import budgets, terminal
        from reward_design.llm.designers import controls, design, page, person
        from reward_design.llm.designers.presets import PRESETS
        from reward_design.llm.outcomes import CacheMissError
        from reward_design.llm.refusal import CandidateRefused

        task, config, console = find(self.task), budgets.assignments(self.set), terminal.console()
        tell = None if self.quiet else _teller(console)
        judge = person.Person(console, num_questions=self.questions) if self.person else None
        try:
            found = design(
                task, model=self._model(), preset=self.preset, language=self.language, rounds=self.rounds,
                candidates=self.candidates, seeds=self.seeds, steps=self.total_timesteps,
                agent=self.agent, driver=self.driver, config=config, seed=self.seed, audits=self.audits,
                time_limit=self.time_limit, min_isolation=_isolation(self.min_isolation), judge=judge,
                out=self.out, overwrite=self.overwrite, on_progress=tell, command=command,
            )  # fmt: skip
        except CacheMissError as miss:  # not a fault of this program: a request that was not recorded
            raise ValueError(str(miss)) from miss
        except CandidateRefused as refused:
            raise ValueError(of_command(str(refused))) from refused
        if found.best is not None and self.final_seeds > 0:
            console.print("Comparing with the controls on fresh seeds ...", highlight=False)
            wanted = self.candidates or PRESETS[self.preset].candidates
            results = controls.compare_with_controls(
                task, found, label=self.preset if self.preset != "random" else "found", rounds=self.rounds,
                candidates=wanted, seeds=self.seeds, steps=self.total_timesteps, agent=self.agent, driver=self.driver,
                config=config, final_seeds=self.final_seeds, seed=self.seed, out=self.out, progress=not self.quiet,
            )  # fmt: skip
            terminal.show(results)
        _conclude(console, found, page.write(self.out))
        return 0 if found.best is not None else 1

    def _model(self) -> Any:
        from reward_design.llm import chat_model

        if self.preset == "random":
            return "embedded"
        return chat_model(
            self.model, base_url=self.base_url, key_env=self.key_env, temperature=self.temperature,
            max_tokens=self.max_tokens, cache=self.cache or f"{self.out}/answers", mode=self.mode, **limits(self),
        )  # fmt: skip


def _isolation(name: str) -> Any:
    from reward_design.llm import Isolation

    levels = {level.name.lower(): level for level in Isolation}
    if name.lower() not in levels:
        raise ValueError(f"unknown isolation {name!r}{suggestion(name, levels)} Known: {', '.join(levels)}.")
    return levels[name.lower()]


def _teller(console: Any) -> Any:
    begun = time.monotonic()

    def tell(event: Any) -> None:
        cost = f"{event.used.calls} calls, {event.used.tokens:,} tokens"
        cost += f", {event.used.money:.4f} spent" if event.used.money else ""
        best = "" if event.best is None else f"; best {event.best.id} at {event.best.fitness.success:.0%}"
        style = {"round": "bold", "refused": "dim", "stopped": "red"}.get(event.kind)
        line = f"{time.monotonic() - begun:7.1f} s  {of_command(event.text):<60} [{cost}{best}]"
        console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)

    return tell


def _conclude(console: Any, found: Any, page: Any) -> None:
    if found.stopped:
        console.print(f"Ended early: {of_command(found.stopped)}", highlight=False, markup=False, soft_wrap=True)
    if found.best is None:
        why = "the page says why each was refused." if found.candidates else "the model proposed none."
        console.print(f"No candidate was trained; {why}", highlight=False)
    else:
        fitness = found.best.fitness
        console.print(
            f"Best: {found.best.id}, {fitness.success:.0%} success, true return {fitness.true_return:.4g}: "
            f"{found.path}",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
    console.print(f"Page: {page.resolve()}", highlight=False, markup=False, soft_wrap=True)
