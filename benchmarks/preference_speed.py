"""Labelled pairs and gradient steps of a reward model per second, against the `imitation` library, in turns (A B A B).

    python benchmarks/preference_speed.py --imitation /path/to/an/environment/bin/python

Both sides label the same random pairs of segments by a noisy return and take one epoch of AdamW steps of the same
network on the same batch size. `imitation` runs in an environment of its own (see ``imitation_worker.py``), on one
thread as this side does unless ``--threads`` says otherwise; without ``--imitation`` only this side is measured. A line
of JSON with medians and ranges goes to standard output, or is appended to ``--out``.
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from reward_design.core import Transition
from reward_design.experiments.provenance import provenance
from reward_design.preferences import (
    Factor,
    PreferenceConfig,
    RewardNetwork,
    bradley_terry,
    questions,
    ranked_teacher,
    synthetic_teacher,
)
from reward_design.preferences.fitting import Fit
from reward_design.preferences.model import model_of
from reward_design.preferences.teachers import Teacher

GOAL = 20.0


@dataclasses.dataclass
class Args:
    """Settings of the benchmark.

    Attributes:
        imitation: Python of an environment with `imitation`.
        pairs: per label call.
        train_pairs: of those, per epoch.
        length: steps of a segment.
        batch: pairs per gradient step.
        rounds: turns of each side.
        threads: of PyTorch.
        out: file to append to.
    """

    imitation: Path | None = None
    pairs: int = 65_536
    train_pairs: int = 1024
    length: int = 50
    batch: int = 32
    rounds: int = 9
    threads: int = 1
    out: Path | None = None


def data(args: Args) -> tuple[Any, Any, Any]:
    """Observations, actions and rewards ``[2 pairs, length, ...]``, as on the other side."""
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(2 * args.pairs, args.length + 1, 3)).astype(np.float32)[:, :-1]
    action = rng.normal(size=(2 * args.pairs, args.length, 1)).astype(np.float32)
    return obs, action, -np.square(obs).sum(-1)


def labelling(teacher: Teacher, steps: Any, num: int) -> Callable[[Any], Any]:
    """``key -> answers`` for all pairs of segments ``[2 num, T, F]``, compiled."""
    mask = jnp.ones(steps.shape[:2], bool)

    first = teacher.value(teacher.params, jnp.asarray(steps[:1000]), mask[:1000])
    units = teacher.calibrate(first, jnp.ones(1000, bool))

    @jax.jit
    def label(steps: Any, key: Any) -> Any:
        values = teacher.value(teacher.params, steps, mask)
        return teacher.answer(teacher.params, units, key, values[:num], values[num:])

    return partial(label, jnp.asarray(steps))


def epoch(args: Args, obs: Any, action: Any, answers: Any) -> Callable[[Any], Any]:
    """``key -> params`` after one epoch, compiled."""
    num = args.train_pairs
    inputs = jnp.asarray(np.concatenate([obs, action], axis=-1))
    read = lambda t: jnp.concatenate([t.obs, t.action], axis=-1)  # noqa: E731
    reward = bradley_terry(read, network=RewardNetwork((32, 32)))
    zeros = jnp.zeros(1)
    example = Transition(obs[0, :1], action[0, :1], obs[0, :1], zeros, zeros > 0, zeros > 0, zeros == 0)
    params, _ = reward.init(jax.random.key(0), example)
    config = PreferenceConfig(
        segment_length=args.length, num_batches=num // args.batch, batch_segments=args.batch, max_labels=num
    )
    fit = Fit(model_of(reward), ("return",), config)
    both = jnp.stack([inputs[:num], inputs[args.pairs : args.pairs + num]], axis=1)
    kept = jax.tree.map(lambda x: x[:num], answers)
    asked = questions.Asked(both, jnp.full((num, 2), args.length), jnp.zeros((num, 2), bool), kept, jnp.int32(num))

    @jax.jit
    def train(asked: questions.Asked, params: Any, state: Any, key: Any) -> Any:
        draw = partial(questions.draw_asked, asked, config=config, held_out=False)
        return fit.train(params, state, draw, None, key)

    return partial(train, asked, params, fit.optimiser_state(params))


def seconds(call: Callable[[Any], Any], key: Any) -> list[float]:
    """Wall clock and processor time (all threads) of one call; the latter says more on a busy machine."""
    start = time.perf_counter(), time.process_time()
    jax.block_until_ready(call(key))
    return [time.perf_counter() - start[0], time.process_time() - start[1]]


class Worker:
    """`imitation` in its own process; a turn gives its seconds for labels and for an epoch."""

    def __init__(self, args: Args) -> None:
        words = [str(args.imitation), str(Path(__file__).with_name("imitation_worker.py"))]
        words += [str(number) for number in (args.pairs, args.length, args.batch, args.train_pairs)]
        env = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=env)

    def turn(self) -> list[float]:
        """One turn."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(
                "the worker with imitation stopped; run benchmarks/imitation_worker.py by hand to see why."
            )
        return [float(word) for word in line.split()]

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


def spread(values: np.ndarray) -> list[float]:
    """Median, lowest and highest."""
    return [float(f"{f(values):.4g}") for f in (np.median, np.min, np.max)]


def main(args: Args) -> None:
    """Measure in turns and write one line."""
    obs, action, reward = data(args)
    noisy = labelling(synthetic_teacher(rationality=1.0), reward[..., None], args.pairs)
    factors = np.stack([-np.square(obs[..., 0]), -np.abs(obs[..., 1]), -np.square(action[..., 0])], axis=-1)
    ranked = labelling(ranked_teacher([Factor(name, len, margin=0.1) for name in "abc"]), factors, args.pairs)
    key = jax.random.key(1)
    train = epoch(args, obs, action, noisy(key))
    calls = (noisy, train, ranked)
    for call in calls:
        seconds(call, key)
    worker = None if args.imitation is None else Worker(args)
    ours, theirs = [], []
    for number in range(args.rounds + 1):
        ours.append([seconds(call, jax.random.key(number)) for call in calls])
        theirs.append(np.full((2, 2), np.nan) if worker is None else np.reshape(worker.turn(), (2, 2)))
    if worker is not None:
        worker.close()
    own, other = np.array(ours[1:]), np.array(theirs[1:])  # the first turn warms both sides up
    amounts = {"labels": args.pairs, "steps": args.train_pairs // args.batch, "ranked_labels": args.pairs}
    record: dict[str, Any] = {"goal": GOAL}
    for i, (name, amount) in enumerate(amounts.items()):
        record[f"{name}_per_s"] = spread(amount / own[:, i, 0])
        if worker is not None and i < 2:
            record[f"imitation_{name}_per_s"] = spread(amount / other[:, i, 0])
            for clock, of in enumerate(("wall", "processor")):
                record[f"{name}_ratio_{of}"] = spread(other[:, i, clock] / own[:, i, clock])
    settings = {k: v for k, v in vars(args).items() if k not in ("imitation", "out")}
    line = json.dumps({**settings, **record, "load": os.getloadavg()[0], **provenance()})
    with args.out.open("a") if args.out else sys.stdout as out:
        print(line, file=out, flush=True)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
