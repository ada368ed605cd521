"""Agents of stable-baselines3 and sbx in compare and train: the contract of metrics, settings, refusals."""

# pyright: reportArgumentType=false, reportOperatorIssue=false

import dataclasses
import random
import subprocess
import sys
from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapter_envs import Walk
from gymnasium import spaces

import reward_design as rd
from reward_design import cli
from reward_design.envs import task, task_from_gymnasium
from reward_design.experiments import budgets, compare
from reward_design.experiments.store import read

torch = pytest.importorskip("torch")
stable_baselines3 = pytest.importorskip("stable_baselines3")

from reward_design.agents import agent, list_agents, sb3, sb3_parts  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # sbx's distributions use names that JAX moved
FAST = {"n_steps": "32", "batch_size": "32", "n_epochs": "1", "num_envs": "2", "policy_kwargs": "{'net_arch': [8]}"}
ARGS = {"agent": "sb3/ppo", "seeds": 2, "total_timesteps": 512, "config": FAST, "progress": False, "report": False}
OFF = {"learning_starts": 100, "batch_size": 8, "train_freq": 32, "policy_kwargs": {"net_arch": [8]}}
gymnasium.register("PlainWalk-v0", entry_point="adapter_envs:Walk", kwargs={"reuse": False})


@pytest.fixture(autouse=True)
def ranks():
    """The distributions that sbx uses promote ranks."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    broken = rd.pointwise("broken", lambda t: jnp.full_like(t.reward, jnp.nan))
    designs = {"sparse": "sparse", "broken": broken, "shaping": "shaping"}
    return compare("cartpole", designs, out=tmp_path_factory.mktemp("sb3"), **{**ARGS, "report": True})


def walk(**settings):
    return task_from_gymnasium(
        "PlainWalk-v0",
        info={"speed": ((), float)},
        success=lambda t: t.terminated & (t.info["speed"] > 0.0),
        **settings,
    )


def settings(name, known, **values):
    return budgets.settings(agent(name), known, config=values)


# --- compare --------------------------------------------------------------------------------------------------------


def test_units_have_what_those_of_our_own_agents_have(results):
    assert set(results.done) == {("cartpole", "sparse"), ("cartpole", "shaping")}
    record = results.done["cartpole", "shaping"].record
    assert set(record["curves"]) >= {"true_return", "shaped_return", "success", "length", "term/potential_shaping"}
    assert record["config"]["gamma"] == task("cartpole").gamma
    assert record["config"]["n_steps"] == 32
    assert record["env_steps"] == 2 * 512
    assert record["steps"][-1] == 512
    assert record["versions"]["torch"] == torch.__version__
    assert record["wall_s"] > 0
    assert results.done["cartpole", "sparse"].final().shape == (2,)
    assert "potential" not in str(results.done["cartpole", "sparse"].record["curves"].keys())


def test_a_failing_reward_is_recorded_and_the_others_go_on(results):
    assert (
        "'broken' must be finite, got nan from term 'broken' at step 0" in results.failed["cartpole", "broken"].reason
    )


def test_the_report_and_a_second_call_work_as_for_any_agent(results, monkeypatch):
    assert "sb3/ppo" in Path(results.report).read_text()

    def broken_again(*_, **__):
        raise FloatingPointError("still broken")

    monkeypatch.setattr(sb3, "train_seeds", broken_again)
    folder = results.report.rpartition("/")[0]
    broken = rd.pointwise("broken", lambda t: jnp.full_like(t.reward, jnp.nan))
    again = compare("cartpole", {"sparse": "sparse", "broken": broken, "shaping": "shaping"}, out=folder, **ARGS)
    assert again.failed["cartpole", "broken"].reason == "still broken"
    np.testing.assert_array_equal(again.done["cartpole", "sparse"].final(), results.done["cartpole", "sparse"].final())


# --- training -------------------------------------------------------------------------------------------------------


def test_metrics_equal_a_naive_count_of_the_episodes():
    known = walk(gamma=0.9)
    reward = rd.chain(rd.environment_reward(), rd.scale(2.0))
    learner, config = agent("sb3/ppo"), settings("sb3/ppo", known, total_timesteps=384, **FAST)
    venv, log = sb3_parts.environment(learner, config, known, reward, 0)
    venv.seed(3)
    venv.reset()
    actions = np.random.default_rng(0).uniform(-1, 1, (192, 2, 2)).astype(np.float32)
    totals, rows, ended = np.zeros((2, 2)), [], []
    for step, action in enumerate(actions, start=1):
        _, paid, dones, infos = venv.step(action)
        totals += [[info["env_reward"], 1.0] for info in infos]
        np.testing.assert_allclose(paid, [2 * info["env_reward"] for info in infos], rtol=1e-5)
        for lane in np.flatnonzero(dones):
            success = not infos[lane]["TimeLimit.truncated"] and infos[lane]["speed"] > 0
            ended.append((*totals[lane], success))
            totals[lane] = 0
        if 2 * step % config.steps_per_update == 0:
            before = rows[-1][:3] if rows else [np.nan] * 3
            rows.append([*(np.mean(ended, axis=0) if ended else before), len(ended)])
            ended = []
    assert len(log.rows) == config.num_updates == len(rows) == 192
    ours = np.array([[row[k] for k in ("true_return", "length", "success")] for row in log.rows])
    np.testing.assert_allclose(ours, np.array(rows)[:, :3], atol=1e-5)
    np.testing.assert_array_equal([row["episodes"] for row in log.rows], [row[3] for row in rows])
    np.testing.assert_allclose([row["shaped_return"] for row in log.rows], 2 * ours[:, 0], rtol=1e-4)
    assert 0 < ours[-1, 2] < 1 or np.ptp(ours[5:, 2]) > 0
    venv.close()


AGENTS = [
    ("sb3/a2c", "cartpole", {}),
    ("sb3/dqn", "chain", OFF),
    ("sb3/sac", "pendulum", {**OFF, "ent_coef": "0.1"}),
    ("sb3/td3", "pendulum", OFF),
    ("sbx/dqn", "cartpole", OFF),
    ("sbx/sac", "pendulum", OFF),
]


@pytest.mark.parametrize(("name", "on", "own"), AGENTS, ids=[f"{name}-{on}" for name, on, _ in AGENTS])
def test_every_kind_of_agent_learns_on_a_task(name, on, own):
    known = task(on)
    config = settings(name, known, total_timesteps=256, **own)
    result = sb3.train(agent(name), config, known, known.dense_reward, 0)
    assert result.metrics["env_steps"][-1] == result.state.num_timesteps == (255 if name == "sb3/a2c" else 256)
    assert result.metrics["length"].shape == (config.num_updates,)
    assert result.state._n_updates > 0


def test_threads_and_random_states_are_the_callers_again():
    def states():
        numpy = np.random.get_state()[1].tolist()  # noqa: NPY002
        return torch.get_num_threads(), random.getstate(), numpy, torch.get_rng_state().tolist()

    before = states()
    with sb3.contained():
        stable_baselines3.common.utils.set_random_seed(3)
        assert torch.get_num_threads() == 1
        assert states() != before
    assert states() == before


def test_the_same_seed_gives_the_same_run_and_another_does_not():
    known = task("cartpole")
    config = settings("sb3/ppo", known, total_timesteps=256, **FAST)
    runs = [sb3.train(agent("sb3/ppo"), config, known, known.dense_reward, seed) for seed in (0, 0, 1)]
    lengths = [run.metrics["length"] for run in runs]
    np.testing.assert_array_equal(lengths[0], lengths[1])
    assert (np.nan_to_num(lengths[0]) != np.nan_to_num(lengths[2])).any()


def test_parameters_equal_those_of_the_library_used_by_hand():
    known = task_from_gymnasium("PlainWalk-v0")
    double = rd.chain(rd.environment_reward(), rd.scale(2.0))
    own = {"n_steps": 32, "batch_size": 32, "n_epochs": 2}
    ours = sb3.train(agent("sb3/ppo"), settings("sb3/ppo", known, total_timesteps=128, **own), known, double, 5).state
    with sb3.contained():
        by_hand = stable_baselines3.PPO("MlpPolicy", Doubled("PlainWalk-v0"), gamma=0.99, seed=5, **own)
        by_hand.env.seed(int(np.random.SeedSequence(5).generate_state(1)[0]) // 2)
        by_hand.learn(128)
    for a, b in zip(ours.policy.parameters(), by_hand.policy.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


class Doubled(gymnasium.RewardWrapper):
    """An environment with twice its reward."""

    def __init__(self, name):
        super().__init__(gymnasium.make(name))

    def reward(self, reward):
        return 2 * reward


def test_evaluation_plays_whole_episodes_with_the_moments_of_training():
    known = walk()
    config = settings("sb3/ppo", known, total_timesteps=128, normalise_obs="true", normalise_reward="true", **FAST)
    result = sb3.train(agent("sb3/ppo"), config, known, rd.environment_reward(), 0)
    first, again = (sb3.evaluate(agent("sb3/ppo"), config, known, result.state, num_episodes=5) for _ in range(2))
    assert len(first["length"]) == 6  # three for each of two lanes
    assert first["length"].max() <= 6
    np.testing.assert_array_equal(first["true_return"], again["true_return"])


# --- spaces ---------------------------------------------------------------------------------------------------------

IMAGE, TINY = spaces.Box(0, 255, (36, 36, 3), np.uint8), spaces.Box(0, 255, (7, 7, 3), np.uint8)
VECTOR = spaces.Box(-1, 1, (3,))


@pytest.mark.parametrize(
    ("space", "in_torch", "in_jax"),
    [
        (VECTOR, ("MlpPolicy", False), ("MlpPolicy", False)),
        (spaces.Discrete(4), ("MlpPolicy", False), ("MlpPolicy", True)),
        (spaces.Dict(a=VECTOR, b=spaces.Discrete(4)), ("MultiInputPolicy", False), ("MlpPolicy", True)),
        (spaces.Dict(a=spaces.Dict(b=VECTOR)), ("MlpPolicy", True), ("MlpPolicy", True)),
        (spaces.Dict(a=TINY), ("MlpPolicy", True), ("MlpPolicy", True)),
        (spaces.Tuple([VECTOR, spaces.Discrete(4)]), ("MlpPolicy", True), ("MlpPolicy", True)),
        (IMAGE, ("CnnPolicy", False), ("CnnPolicy", False)),
        (TINY, ("MlpPolicy", True), ("MlpPolicy", True)),
    ],
    ids=["vector", "discrete", "dict", "nested", "dict of tiny image", "tuple", "image", "tiny image"],
)
def test_the_policy_follows_from_the_observations(space, in_torch, in_jax):
    for name, expected in (("sb3/ppo", in_torch), ("sbx/ppo", in_jax)):
        learner = agent(name)
        assert learner.view(learner.Config(), space) == expected


@pytest.mark.parametrize("name", ["sb3/ppo", "sbx/ppo"])
def test_dictionary_observations_are_learned_from(name):
    known = task_from_gymnasium("PlainWalk-v0", layout="dict")
    config = settings(name, known, total_timesteps=64, n_steps=32, batch_size=32, n_epochs=1, normalise_obs=True)
    shaped = rd.potential_shaping(lambda obs: -jnp.abs(obs["position"]).sum(-1), gamma=known.gamma)
    result = sb3.train(agent(name), config, known, shaped, 0)
    assert np.isfinite(result.metrics["shaped_return"][-1])


def test_flat_observations_are_one_hot():
    config = settings("sbx/ppo", task("chain"), total_timesteps=64, n_steps=64)
    venv, _ = sb3_parts.environment(agent("sbx/ppo"), config, task("chain"), rd.environment_reward(), 0)
    assert venv.reset().tolist() == np.eye(venv.observation_space.shape[0])[:1].tolist()
    venv.close()


class Strange(Walk):
    """Walk with other actions."""

    def __init__(self, actions, render_mode=None):
        super().__init__(reuse=False)
        self.action_space = actions


gymnasium.register("Strange-v0", entry_point=Strange, disable_env_checker=True)


@pytest.mark.parametrize(
    ("name", "actions", "sentence"),
    [
        ("sb3/dqn", VECTOR, r"needs Discrete actions, task 'gymnasium/Strange-v0' has Box.*; use sb3/ppo or sb3/sac"),
        ("sbx/sac", spaces.Discrete(3), r"needs Box actions, .* has Discrete\(3\); use sbx/ppo or sbx/dqn"),
        (
            "sb3/ppo",
            spaces.Dict(a=VECTOR),
            r"needs Box or Discrete or .* has Dict\(.*; make one of them in a gymnasium.ActionWrapper",
        ),
        (
            "sb3/sac",
            spaces.Box(-np.inf, np.inf, (2,)),
            "needs bounded actions, .* bound them with gymnasium.wrappers.TransformAction",
        ),
        ("sb3/ppo", spaces.Discrete(3, start=1), "needs actions counted from 0"),
    ],
)
def test_actions_that_an_agent_cannot_take_are_refused_before_anything_runs(name, actions, sentence, tmp_path):
    known = task_from_gymnasium("Strange-v0", actions=actions)
    with pytest.raises(ValueError, match=sentence):
        compare(known, ["environment"], agent=name, out=tmp_path / "none", progress=False, report=False)
    assert not (tmp_path / "none").exists()


# --- settings -------------------------------------------------------------------------------------------------------


def test_settings_are_those_of_the_constructor():
    config = agent("sb3/ppo").Config
    names = {field.name for field in dataclasses.fields(config)}
    assert names >= {"learning_rate", "n_steps", "clip_range", "target_kl", "policy_kwargs", "use_sde"}
    assert not names & {"env", "seed", "verbose", "rollout_buffer_class"}
    assert agent("sb3/sac").Config().ent_coef == "auto"
    assert agent("sb3/ppo") is agent("sb3/ppo")
    values = {"learning_rate": "3e-4", "clip_range_vf": "none", "normalize_advantage": "false", "target_kl": "0.1"}
    parsed = settings("sb3/ppo", task("chain"), **values)
    assert (parsed.learning_rate, parsed.clip_range_vf, parsed.normalize_advantage) == (3e-4, None, False)
    assert settings("sb3/sac", task("pendulum"), ent_coef="0.1").ent_coef == 0.1
    assert parsed.total_timesteps == budgets.BUDGETS["ppo"]["chain"]["total_timesteps"]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"n_step": "3"}, "has no setting 'n_step'; did you mean 'n_steps'?"),
        ({"n_steps": "many"}, "setting 'n_steps' of agent 'sb3/ppo' must be int, got 'many'"),
        ({"policy_kwargs": "[64]"}, "setting 'policy_kwargs' of agent 'sb3/ppo' must be"),
        ({"total_timesteps": "1", "num_envs": "2"}, r"must be at least num_envs \* n_steps = 4096, got 1"),
        ({"gamma": "1.5"}, r"gamma must be in \[0, 1\], got 1.5"),
    ],
)
def test_settings_that_do_not_fit(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        settings("sb3/ppo", task("chain"), **values)


def test_what_an_agent_cannot_serve_is_refused():
    learner, chain = agent("sb3/ppo"), task("chain")
    config = settings("sb3/ppo", chain)
    whole = rd.from_trajectory("spa", lambda key, example: ((), ()), lambda p, s, t: (t.reward, s))
    with pytest.raises(TypeError, match=r"'spa' needs whole episodes .* the wrapper that 'sb3/ppo' learns through"):
        learner.check(config, chain, whole)
    with pytest.raises(ValueError, match=r"discounts with gamma 0.5, the agent with 0.99"):
        learner.check(config, chain, rd.potential_shaping(chain.potential, gamma=0.5))
    with pytest.raises(ValueError, match="normalise_obs needs observations that are arrays of numbers"):
        learner.check(dataclasses.replace(config, normalise_obs=True), chain, chain.sparse_reward)
    with pytest.raises(ValueError, match="has no policy 'MlpPolice'; did you mean 'MlpPolicy'"):
        learner.check(dataclasses.replace(config, policy="MlpPolice"), chain, chain.sparse_reward)


# --- names, command line --------------------------------------------------------------------------------------------


def test_names_are_listed_and_suggested():
    assert {"sb3/<name>", "sbx/<name>", "ppo"} <= set(list_agents())
    with pytest.raises(ValueError, match=r"unknown agent 'sb3/pp0'; did you mean 'sb3/ppo'?"):
        agent("sb3/pp0")


def test_missing_packages_name_the_extra():
    code = (
        "import sys; sys.modules['stable_baselines3'] = None; sys.modules['sbx'] = None\n"
        "from reward_design.agents import agent, list_agents\n"
        "print(len(list_agents()))\n"
        "for name in ('sb3/ppo', 'sbx/sac'):\n"
        "    try: agent(name)\n"
        "    except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert "agents sb3/<name> need the extra 'sb3': pip install 'reward-design[sb3]'" in done.stdout
    assert "agents sbx/<name> need the extra 'sbx': pip install 'reward-design[sbx]'" in done.stdout


def test_train_saves_the_algorithm_and_knows_it_again(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("reward_design.agents.use_all_cores", lambda: 1)
    out = tmp_path / "run"
    words = ["train", "--task", "cartpole", "--agent", "sb3/ppo", "--total-timesteps", "256", "--evaluations", "4"]
    words += ["--out", str(out), "--set", "normalise_obs=true", *[f"{k}={v}" for k, v in FAST.items()]]
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    assert "saved: " in text
    assert (out / "model.zip").is_file()
    records = read(out)
    assert [r["update"] for r in records if r["kind"] == "evaluation"] == [32, 64, 96, 128]
    assert cli.main(words) == 0
    again = capsys.readouterr().out
    assert "finished before: 256 steps" in again
    assert again.splitlines()[-1] == text.splitlines()[-1]
    assert cli.main([*words[:-1], "n_epochs=2"]) == 2
