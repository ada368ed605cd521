"""The command ``reward-design llm``: ask a language model, or serve the embedded one."""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import OmitSubcommandPrefixes, Positional, arg, subcommand


@dataclass(frozen=True)
class Ask:
    """Ask a model one question and print its answers.

    For example, the embedded model, which needs no network, then one on a server:

      reward-design llm ask "What is a potential-based reward?" --max-tokens 100

      reward-design llm ask "Name three factors of a walk." --model llama3.1 --base-url http://127.0.0.1:11434/v1
    """

    question: Annotated[Positional[str], arg(metavar="TEXT")]
    """What to ask; - reads it from standard input."""
    model: str = "embedded"
    """`embedded`, a file *.gguf, or the name of a model on the server."""
    base_url: Annotated[str | None, arg(metavar="URL")] = None
    """Address of an OpenAI-compatible server up to /v1; its key comes from the environment variable OPENAI_API_KEY."""
    schema: Annotated[Path | None, arg(metavar="FILE")] = None
    """File with a JSON schema that the answer has to fit."""
    samples: int = 1
    """Answers to ask for."""
    temperature: float = 1.0
    """Of sampling."""
    max_tokens: int = 512
    """Of an answer."""
    cache: Annotated[str | None, arg(metavar="FOLDER")] = None
    """Folder of recorded answers, which are not asked for again."""
    mode: str | None = None
    """With --cache: record (the default) asks for what is not there, replay asks nothing, refresh asks for all anew."""
    calls: int | None = None
    """Limit on requests to the model."""
    tokens: int | None = None
    """Limit on tokens of prompts and answers."""
    money: float | None = None
    """Limit on what it may cost; needs --price."""
    price: Annotated[tuple[float, float, str] | None, arg(metavar="PROMPT ANSWER DATE")] = None
    """Of a million tokens of prompt, of answer, and the day when you looked them up: --price 2.0 8.0 2026-11-26."""
    seconds: float | None = None
    """Limit on wall time."""

    def run(self) -> int:
        """Ask and print; 1 if there is no usable answer, or a limit left some out."""
        from reward_design.llm import BudgetExceeded, CacheMissError, ModelError, chat_model

        question = sys.stdin.read() if self.question == "-" else self.question
        if not question.strip():
            raise ValueError("the question is empty; give it as TEXT, or - and text on standard input.")
        if self.mode not in (None, "live") and self.cache is None:
            raise ValueError(f"--mode {self.mode} needs --cache FOLDER, the folder of recorded answers.")
        schema = None if self.schema is None else _read_schema(self.schema)
        model = chat_model(
            self.model, base_url=self.base_url, temperature=self.temperature, max_tokens=self.max_tokens,
            cache=self.cache, mode=self.mode, **limits(self),
        )  # fmt: skip
        stop: BudgetExceeded | None = None
        try:
            answers = model.ask([{"role": "user", "content": question}], samples=self.samples, schema=schema)
        except (ModelError, CacheMissError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except BudgetExceeded as reached:
            stop, answers = reached, reached.answers
        if answers:
            print(*(answer.text for answer in answers), sep="\n\n")
        for answer in answers:
            cut = ", cut off at --max-tokens" if answer.finish_reason == "length" else ""
            where = "from the cache" if answer.cached else f"in {answer.seconds:.1f} s"
            cost = f", {answer.cost:.4g} spent" if self.price and not answer.cached else ""
            print(f"[{model.name}: {answer.completion_tokens} tokens {where}{cost}{cut}]", file=sys.stderr)
        if stop is not None:
            kept = f"in {self.cache}:" if self.cache else "nowhere but here; with --cache FOLDER"
            print(
                f"stopped by --{stop.limit} {getattr(self, stop.limit):g} with {len(answers)} of {self.samples} "
                f"answers, kept {kept} a larger --{stop.limit} goes on from them.", file=sys.stderr,
            )  # fmt: skip
            if stop.__cause__ is not None:
                print(f"The last attempt ended in {stop.__cause__}", file=sys.stderr)
        return 0 if stop is None else 1


@dataclass(frozen=True)
class Serve:
    """Serve a local model to any OpenAI-compatible client on this machine, until Ctrl-C."""

    model: str = "embedded"
    """`embedded` or a file *.gguf."""
    port: int = 8080
    """Where, on the loopback address; 0 for any port that is free."""
    threads: int | None = None
    """That compute; by default half of the cores."""

    def run(self) -> int:
        """Serve."""
        from reward_design.llm import embedded

        file = embedded.weights() if self.model == "embedded" else Path(self.model)
        url = embedded.serve(file, port=self.port, threads=self.threads)
        print(f"{embedded.identity(file)} at {url}; Ctrl-C stops it.", flush=True)
        try:
            embedded.wait()
        finally:
            embedded.stop()
        return 0


@dataclass(frozen=True)
class Llm:
    """Ask a language model, or serve the embedded one."""

    command: OmitSubcommandPrefixes[
        Annotated[Ask, subcommand("ask")]
        | Annotated[Serve, subcommand("serve", description="serve a local model on this machine")]
    ]

    def run(self, command: str) -> int:
        """Run the sub-command."""
        return self.command.run()


def of_command(text: str) -> str:
    """What an error or a limit says, in the words of the command line.

    Example:
        >>> of_command("what there is so far is kept, a larger Budget(calls=...) goes on.")
        'what there is so far is kept, a larger --calls goes on.'
        >>> of_command("accept the risk with min_isolation=Isolation.PROCESS.")
        'accept the risk with --min-isolation PROCESS.'
    """
    text = re.sub(r"Budget\((\w+)=\.\.\.\)", r"--\1", text)
    return re.sub(r"min_isolation=Isolation\.(\w+)", r"--min-isolation \1", text)


def limits(command: Any) -> dict[str, Any]:
    """``budget`` and ``price`` for :func:`reward_design.llm.chat_model`, from the settings of a command.

    Raises:
        ValueError: for money without a price, or settings that are none.
    """
    from reward_design.llm import Budget, Price

    if command.money is not None and command.price is None and not _is_local(command.model):
        raise ValueError(
            "--money needs to know what the model costs; give --price PROMPT ANSWER DATE, per million tokens, with the "
            "day when you looked them up, such as --price 2.0 8.0 2026-11-26."
        )
    given = {name: getattr(command, name) for name in ("calls", "tokens", "money", "seconds")}
    budget = Budget(**given) if any(value is not None for value in given.values()) else None
    return {"budget": budget, "price": None if command.price is None else Price(*command.price)}


def _is_local(model: str) -> bool:
    return model == "embedded" or model.endswith(".gguf")


def _read_schema(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{str(file)!r} must hold a JSON schema: {error}.") from error
