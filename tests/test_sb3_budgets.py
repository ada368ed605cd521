"""How long agents of stable-baselines3 and sbx train: every step is learned from; what their constructors refuse."""

import jax
import pytest

from reward_design import cli
from reward_design.envs import task
from reward_design.experiments.suites.declared import Block

pytest.importorskip("torch")
pytest.importorskip("stable_baselines3")

from reward_design.agents import agent, sb3

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # sbx's distributions use names that JAX moved
SMALL = {"batch_size": 8, "policy_kwargs": {"net_arch": [8]}}


@pytest.fixture(autouse=True)
def ranks():
    """The distributions that sbx uses promote ranks."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(autouse=True)
def same_devices(monkeypatch):
    """JAX has started in the test process; the number of devices can no longer be changed."""
    monkeypatch.setattr("reward_design.agents.use_all_cores", lambda: 1)


SHORT = [
    ("sb3/ppo", 100, r"total_timesteps must be at least num_envs \* n_steps = 2048, got 100\."),
    ("sbx/ppo", 2047, r"total_timesteps must be at least num_envs \* n_steps = 2048, got 2047\."),
    ("sb3/a2c", 4, r"total_timesteps must be at least num_envs \* n_steps = 5, got 4\."),
    ("sb3/dqn", 3, r"total_timesteps must be at least num_envs \* train_freq = 4, got 3\."),
    ("sb3/dqn", 90, r"learning_starts must be below the 88 steps of the run .*, got 100; nothing would be learned\."),
    ("sb3/dqn", 103, r"learning_starts must be below the 100 steps of the run .*, got 100; nothing would be learned"),
    ("sbx/sac", 100, r"learning_starts must be below the 100 steps of the run .*, got 100; nothing would be learned"),
]


@pytest.mark.parametrize(("name", "steps", "sentence"), SHORT, ids=[f"{name}-{steps}" for name, steps, _ in SHORT])
def test_a_run_in_which_nothing_would_be_learned_is_refused(name, steps, sentence):
    with pytest.raises(ValueError, match=sentence):
        agent(name).Config(total_timesteps=steps)


@pytest.mark.parametrize("command", ["train", "compare"])
def test_it_is_refused_before_anything_runs(command, tmp_path, capsys):
    words = [command, "--task", "chain", "--agent", "sb3/ppo", "--total-timesteps", "100", "--out", str(tmp_path / "r")]
    assert cli.main(words) == 2
    printed = capsys.readouterr()
    assert printed.err == "error: total_timesteps must be at least num_envs * n_steps = 2048, got 100.\n"
    assert not printed.out
    assert not (tmp_path / "r").exists()


RUNS = [
    ("sb3/ppo", "chain", 300, {"n_steps": 64, "num_envs": 2, "n_epochs": 1, **SMALL}, 256, 2),
    ("sbx/ppo", "chain", 130, {"n_steps": 64, "n_epochs": 1, **SMALL}, 128, 2),
    ("sb3/a2c", "chain", 44, {"policy_kwargs": {"net_arch": [8]}}, 40, 8),
    ("sb3/dqn", "chain", 107, SMALL, 104, 1),
    ("sbx/dqn", "chain", 107, SMALL, 104, 1),
    ("sb3/sac", "pendulum", 103, {"num_envs": 2, **SMALL}, 102, 1),
]


@pytest.mark.parametrize(("name", "on", "asked", "own", "steps", "trained"), RUNS, ids=[run[0] for run in RUNS])
def test_every_step_that_is_collected_is_learned_from(name, on, asked, own, steps, trained, monkeypatch):
    known, learner, calls = task(on), agent(name), []
    learn = learner.algorithm.train
    monkeypatch.setattr(learner.algorithm, "train", lambda *args, **more: (calls.append(1), learn(*args, **more))[1])
    config = learner.Config(total_timesteps=asked, gamma=known.gamma, **own)
    result = sb3.train(learner, config, known, known.dense_reward, 0)
    assert result.state.num_timesteps == result.metrics["env_steps"][-1] == steps
    assert len(result.metrics["length"]) == config.num_updates
    assert len(calls) == trained
    assert result.state._n_updates > 0


@pytest.mark.parametrize("asked", [2048, 3000, 60_000, 409_600, 1_000_000, 1_234_567])
@pytest.mark.parametrize("own", [{}, {"num_envs": 8, "n_steps": 100}, {"n_steps": 7}, {"n_steps": 2039}])
def test_rows_of_metrics_fill_whole_rollouts(own, asked):
    config = agent("sb3/ppo").Config(total_timesteps=asked, **own)
    steps = config.num_updates * config.steps_per_update
    assert steps % config.steps_per_rollout == 0
    assert steps <= asked
    assert steps > asked - config.steps_per_rollout * max(1, asked // config.steps_per_rollout // 200)
    assert config.steps_per_update % config.num_envs == 0
    assert config.num_updates < 400


def test_the_shortest_run_of_a_suite_fills_a_rollout():
    block = Block("quick", ("chain",), ("sparse",), "sb3/ppo", 1, 1.0, 100)
    assert block.total_timesteps("chain") == 2048


# --- constructors ---------------------------------------------------------------------------------------------------

WRONG = [
    (["n_steps=0"], "n_steps must be at least 1, got 0."),
    (["n_steps=64", "batch_size=-1"], "batch_size must be at least 1, got -1."),
    (["n_epochs=0"], "n_epochs must be at least 1, got 0."),
    (["n_steps=64", "batch_size=1"], "agent 'sb3/ppo' cannot be made with n_steps=64, batch_size=1: `batch_size` must"),
    (["policy=CnnPolicy"], "agent 'sb3/ppo' reads images with policy 'CnnPolicy', got observations of Discrete(20)"),
    (["policy=MultiInputPolicy"], "agent 'sb3/ppo' reads dictionaries with policy 'MultiInputPolicy'"),
    (["n_steps=64", "policy_kwargs={'net': 3}"], "agent 'sb3/ppo' cannot be made with n_steps=64, policy_kwargs="),
    (["n_steps=64", "device=abacus"], "agent 'sb3/ppo' cannot be made with n_steps=64, device='abacus': "),
]


@pytest.mark.parametrize(("values", "sentence"), WRONG, ids=[" ".join(values) for values, _ in WRONG])
def test_settings_that_a_constructor_refuses_get_one_sentence(values, sentence, capsys):
    assert cli.main(["train", "--task", "chain", "--agent", "sb3/ppo", "--set", *values]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {sentence}")
    assert error.count("\n") == 1


def test_an_agent_that_is_told_to_take_no_gradient_step_is_refused():
    with pytest.raises(ValueError, match="gradient_steps must be at least 1, or -1 for one per environment step"):
        agent("sb3/dqn").Config(gradient_steps=0)
