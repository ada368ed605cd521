"""Use an installed wheel that came without any extra. Runs outside the repository, with the installation's Python."""

import importlib
import importlib.util
import pkgutil
import subprocess
import sys
import tempfile
from pathlib import Path

OPTIONAL = [
    "torch",
    "stable_baselines3",
    "sbx",
    "gymnax",
    "xminigrid",
    "mujoco",
    "gymnasium_robotics",
    "minihack",
    "nle",
    "minigrid",
    "imageio",
]
OPTIONAL += ["tornado", "openai", "xllamacpp", "jsonschema", "flatbuffers", "ray", "pyarrow"]
OPTIONAL += ["optuna", "tensorboard", "wandb"]


def check_alone() -> None:
    """Nothing optional is here, and the package comes from the installation."""
    present = [name for name in OPTIONAL if importlib.util.find_spec(name)]
    assert not present, f"optional packages that a plain installation brought: {present}"
    package = importlib.import_module("reward_design")
    assert "site-packages" in Path(package.__file__).parts, package.__file__
    for name in ("envs", "agents"):
        assert importlib.util.find_spec(name) is None, f"a top-level package {name!r} was installed"


def import_everything() -> list[str]:
    """Import every module; one that needs an extra must say which. Returns the names of those."""
    package = importlib.import_module("reward_design")
    needing_extras = []
    names = [module.name for module in pkgutil.walk_packages(package.__path__, "reward_design.")]
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            if "reward-design[" not in str(error):
                raise
            needing_extras.append(name)
    return needing_extras


def use_library() -> None:
    """One reward on one task."""
    from reward_design.distance import starc_distance
    from reward_design.envs import task

    tabular = task("four_rooms").tabular()
    reward, opposite = tabular.reward, -tabular.reward
    assert starc_distance(reward, reward, tabular.transition, gamma=tabular.gamma) < 1e-6
    assert starc_distance(reward, opposite, tabular.transition, gamma=tabular.gamma) > 1.9


def use_command_line() -> None:
    """The command, its lists, and a comparison with its report (which needs the packaged templates)."""
    listed = subprocess.run(["reward-design", "list"], check=True, capture_output=True, text=True).stdout
    assert "four_rooms" in listed, listed
    assert "ppo" in listed, listed
    with tempfile.TemporaryDirectory() as out:
        command = "reward-design compare --task chain --rewards sparse shaping --seeds 2 --total-timesteps 8192 --quiet"
        subprocess.run([*command.split(), "--out", out], check=True)
        assert list(Path(out).rglob("*.html")), "compare wrote no report"


if __name__ == "__main__":
    check_alone()
    needing_extras = import_everything()
    use_library()
    use_command_line()
    print(f"The wheel works alone on Python {sys.version.split()[0]}; waiting for an extra: {needing_extras}")
