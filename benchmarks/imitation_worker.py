"""Times preference comparisons of the `imitation` library for `preference_speed.py`, in an environment of its own.

    python imitation_worker.py NUM_PAIRS LENGTH BATCH TRAIN_PAIRS

For every line on standard input it labels all pairs once and trains the reward model on some for one epoch, and prints
seconds of wall clock and of processor for each. The environment needs imitation (1.0.1 was used), which pins an old
gymnasium.
"""

import sys
import time

import gymnasium
import numpy as np
from imitation.algorithms import preference_comparisons as pc  # pyright: ignore[reportMissingImports]
from imitation.data.types import TrajectoryWithRew  # pyright: ignore[reportMissingImports]
from imitation.rewards.reward_nets import BasicRewardNet  # pyright: ignore[reportMissingImports]


def fragments(num, length):
    """The same random segments as on the other side, as pairs of trajectories."""
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(2 * num, length + 1, 3)).astype(np.float32)
    action = rng.normal(size=(2 * num, length, 1)).astype(np.float32)
    reward = -np.square(obs[:, :-1]).sum(-1)
    made = [TrajectoryWithRew(o, a, None, False, r) for o, a, r in zip(obs, action, reward)]
    return list(zip(made[:num], made[num:]))


def now():
    """Wall clock and processor time."""
    return np.array([time.perf_counter(), time.process_time()])


def main():
    """Set up, then one turn per line."""
    num, length, batch, num_train = map(int, sys.argv[1:])
    pairs = fragments(num, length)
    rng = np.random.default_rng(1)
    gatherer = pc.SyntheticGatherer(rng=rng)
    net = BasicRewardNet(
        gymnasium.spaces.Box(-10, 10, (3,)), gymnasium.spaces.Box(-10, 10, (1,)), hid_sizes=(32, 32),
        use_state=True, use_action=True, use_next_state=False, use_done=False,
    )  # fmt: skip
    model = pc.PreferenceModel(net)
    trainer = pc.BasicRewardTrainer(model, pc.CrossEntropyRewardLoss(), rng=rng, batch_size=batch, epochs=1, lr=1e-3)
    for _ in sys.stdin:
        start = now()
        preferences = gatherer(pairs)
        labelled = now() - start
        dataset = pc.PreferenceDataset()
        dataset.push(pairs[:num_train], preferences[:num_train])
        start = now()
        trainer.train(dataset)
        print(*labelled, *(now() - start), flush=True)


if __name__ == "__main__":
    main()
