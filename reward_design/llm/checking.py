"""The trainer's side of a check: lint, a worker behind walls with a wall-clock limit, then verification."""

import base64
from collections.abc import Mapping
from typing import Any

import jax

import reward_design
from reward_design._optional import require
from reward_design.envs import recipe
from reward_design.envs.base import Task
from reward_design.llm import lint
from reward_design.llm.artifact import Artifact
from reward_design.llm.inputs import input_specs
from reward_design.llm.isolation import Isolation
from reward_design.llm.refusal import CandidateRefused
from reward_design.llm.screening import prepare
from reward_design.llm.supervisor import Worker
from reward_design.llm.verify import verified_artifact


def check_code(
    source: str,
    task: Task,
    *,
    time_limit: float,
    min_isolation: Isolation,
    linted: bool = True,
    skip: tuple[str, ...] = (),
) -> Artifact:
    """All checks of a candidate in the language ``code``.

    Args:
        source: the text.
        task: the task that it is for.
        time_limit: seconds of wall-clock time for the candidate, once its worker stands.
        min_isolation: refuse to run it behind lower walls.
        linted: whether to lint first; False to see that the walls alone hold.
        skip: walls to leave out, to see that the others hold.

    Raises:
        CandidateRefused: at the first check that it does not pass.
    """
    require("flatbuffers", "llm", "rewards in code")
    if linted:
        lint.check(source)
    prepare()
    with Worker(time_limit=time_limit, skip=skip) as worker:
        reached = _started(worker, min_isolation)
        answer = worker.ask({"source": source, "specs": input_specs(task)}, time_limit)
    return accepted(answer, source, task, reached)


def require_isolation(min_isolation: Isolation) -> None:
    """See that this machine can check candidates at all, before a model is paid for writing them.

    Args:
        min_isolation: the level that will be asked for.

    Raises:
        CandidateRefused: if the walls of a worker are lower here, or no worker starts.
        ImportError: if the extra ``llm`` is missing.
    """
    require("flatbuffers", "llm", "rewards in code")
    with Worker(time_limit=1.0) as worker:
        _started(worker, min_isolation)


def _started(worker: Worker, min_isolation: Isolation) -> dict[str, Any]:
    reached = worker.start()
    if reached["level"] < min_isolation:
        raise CandidateRefused("isolation", _too_low(reached, min_isolation))
    return reached


def accepted(answer: Mapping[str, Any], source: str, task: Task, reached: Mapping[str, Any]) -> Artifact:
    """What a worker sent back as an artifact, its program verified.

    Raises:
        CandidateRefused: if it is not what a worker sends, or the program fails a check.
    """
    artifact = _artifact(answer, source, task, input_specs(task), reached)
    verified_artifact(artifact)
    return artifact


def _artifact(answer: Mapping[str, Any], source: str, task: Task, specs: Mapping[str, Any], reached: Any) -> Artifact:
    try:
        used = tuple(str(name) for name in answer["used"] if name in specs)
        return Artifact(
            language="code", source=source, task=recipe(task), used=used, specs={name: specs[name] for name in used},
            terms=tuple(answer["terms"]), remainder=bool(answer["remainder"]),
            memory=tuple(dict(part) for part in answer["memory"]),
            program=base64.b64decode(answer["program"], validate=True),
            provenance={
                "versions": {"jax": jax.__version__, "reward_design": reward_design.__version__},
                "isolation": Isolation(reached["level"]).name,
                "walls": [str(name) for name in reached["features"]],
                "range": [float(x) for x in answer["range"]],
            },
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CandidateRefused(
            "worker", f"the answer of the checker is broken ({type(error).__name__}); return a reward and nothing else."
        ) from None


def _too_low(reached: Mapping[str, Any], wanted: Isolation) -> str:
    level = Isolation(reached["level"])
    return (
        f"this machine isolates a candidate at level {level.name} ({', '.join(reached['features']) or 'no walls'}), "
        f"and {Isolation(wanted).name} is required; run it on Linux with Landlock and seccomp, or accept the risk with "
        f"min_isolation=Isolation.{level.name}."
    )
