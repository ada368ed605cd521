"""Gradient steps per second of the estimator, against the same loop in eager PyTorch.

    python benchmarks/redistribution_speed.py
    python benchmarks/redistribution_speed.py --episodes 64 --length 500 --hidden 64 64 --method rrd

Both sides have the same network, the same batches of the same size, the same loss and Adam; ours is the estimator and
the loss that the learner compiles, in one scan of ``--steps`` updates as it does. They take turns in one process, each
with ``--threads`` threads for PyTorch (XLA takes what the machine has unless ``taskset`` says otherwise). Printed are
medians with their range over ``--rounds``, and the ratio.
"""

import dataclasses
import itertools
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from reward_design.redistribution import mlp, randomised, squared_error


@dataclasses.dataclass
class Args:
    """Settings of the benchmark.

    Attributes:
        method: ``"spa"`` on whole episodes, or ``"rrd"`` on random steps.
        episodes: of a batch.
        length: steps of an episode.
        num_features: width of what the network reads.
        hidden: widths of the tanh layers.
        subset: steps of an episode that ``"rrd"`` draws.
        steps: gradient steps of a round.
        rounds: rounds.
        threads: of PyTorch.
    """

    method: str = "spa"
    episodes: int = 16
    length: int = 100
    num_features: int = 10
    hidden: tuple[int, ...] = (64, 64)
    subset: int = 32
    steps: int = 200
    rounds: int = 7
    threads: int = 1


def main(args: Args) -> None:
    """Measure both, turn by turn, and check that both learn the same problem."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(args.length, args.episodes, args.num_features)).astype(np.float32)
    total = np.tanh(x[..., 0]).sum(axis=0) / args.length**0.5
    sides = {"ours": ours(args, x, total), "pytorch": theirs(args, x, total)}
    losses = {name: side() for name, side in sides.items()}  # compiles
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            losses[name] = side()
            rates[name].append(args.steps / (time.perf_counter() - start))
    medians = {name: float(np.median(values)) for name, values in rates.items()}
    for name, values in rates.items():
        print(
            f"{name}: {medians[name]:,.0f} steps/s ({min(values):,.0f} to {max(values):,.0f}), loss {losses[name]:.2g}"
        )
    print(f"ratio {medians['ours'] / medians['pytorch']:.1f}")
    print(json.dumps({**dataclasses.asdict(args), **medians, "ratio": medians["ours"] / medians["pytorch"]}))


def ours(args: Args, x: np.ndarray, total: np.ndarray) -> Callable[[], float]:
    """``--steps`` updates of the estimator in one call."""
    estimator, optimiser = mlp(args.hidden), optax.scale_by_adam()
    spa = args.method == "spa"
    loss = squared_error(per_step=False) if spa else randomised(args.subset, unbiased=False)
    length = jnp.full(args.episodes, float(args.length))
    rows, returns = jnp.asarray(x), jnp.asarray(total)

    def objective(network: Any, rows: Any) -> Any:
        c = estimator.unroll(network, rows)
        return loss.fn(c, jnp.ones(c.shape, bool), length, returns).mean()

    def step(carry: Any, key: Any) -> Any:
        network, state = carry
        drawn = rows
        if not spa:
            pick = jax.random.randint(key, (args.subset, args.episodes), 0, args.length)
            drawn = rows[pick, jnp.arange(args.episodes)[None]]
        value, grads = jax.value_and_grad(objective)(network, drawn)
        updates, state = optimiser.update(grads, state)
        return (jax.tree.map(lambda p, u: p - 1e-3 * u, network, updates), state), value

    @jax.jit
    def run(network: Any, key: Any) -> Any:
        carry = (network, optimiser.init(network))
        return jax.lax.scan(step, carry, jax.random.split(key, args.steps))[1][-1]

    network = estimator.init(jax.random.key(0), args.num_features)
    return lambda: float(run(network, jax.random.key(1)))


def theirs(args: Args, x: np.ndarray, total: np.ndarray) -> Callable[[], float]:
    """The same in eager PyTorch."""
    import torch

    torch.set_num_threads(args.threads)
    rows, returns = torch.tensor(x), torch.tensor(total, dtype=torch.float32)
    widths = [args.num_features, *args.hidden]

    def network() -> Any:
        layers: list[Any] = []
        for before, after in itertools.pairwise(widths):
            layers += [torch.nn.Linear(before, after), torch.nn.Tanh()]
        return torch.nn.Sequential(*layers, torch.nn.Linear(widths[-1], 1))

    def run() -> float:
        torch.manual_seed(0)
        model = network()
        adam = torch.optim.Adam(model.parameters(), lr=1e-3)
        loss = torch.tensor(0.0)
        for _ in range(args.steps):
            if args.method == "spa":
                loss = torch.square(model(rows)[..., 0].sum(dim=0) - returns).mean()
            else:
                pick = torch.randint(args.length, (args.subset, args.episodes))
                c = model(rows[pick, torch.arange(args.episodes)[None]])[..., 0]
                loss = torch.square(returns / args.length - c.mean(dim=0)).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
        return float(loss)

    return run


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
