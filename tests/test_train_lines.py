"""How many lines and checkpoints a run makes, whatever its number of updates can be divided by."""

import pytest
from rich.console import Console

from reward_design.experiments import single, store


@pytest.mark.parametrize(
    ("updates", "evaluations", "lines"),
    [
        (23, 5, [4, 8, 12, 16, 20, 23]),  # a prime: every 23 // 5 updates and at the end
        (24, 6, [4, 8, 12, 16, 20, 24]),
        (26, 6, [4, 8, 12, 16, 20, 24, 26]),
        (22, 2, [11, 22]),
    ],
)
def test_lines_are_about_as_many_as_asked_for(tmp_path, updates, evaluations, lines):
    config = {"num_envs": 2, "num_steps": 16}
    single.train(
        "chain", "sparse", agent="q_learning", config=config, total_timesteps=32 * updates, evaluations=evaluations,
        out=str(tmp_path), console=Console(quiet=True),
    )  # fmt: skip
    assert [row["update"] for row in store.read(tmp_path) if row["kind"] == "evaluation"] == lines
