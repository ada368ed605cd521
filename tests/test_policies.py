"""Policies saved and loaded: the same actions bit for bit, and one sentence for whatever does not fit."""

import json
import re
import shutil
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import reward_design as rd
from reward_design.agents import Policy, agent, checkpoint, load_policy, policy_files, ppo, q_learning, save_policy
from reward_design.agents.policies import acted_from
from reward_design.envs import recipe, task, task_from_gymnasium
from reward_design.experiments import load_run, single
from reward_design.experiments.records import encoded

SMALL: dict[str, Any] = {"num_envs": 4, "num_steps": 32, "total_timesteps": 256}
PPO = ppo.Config(**SMALL, num_epochs=1, hidden=(8,))
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def cartpole():
    """Settings and result of a short run with normalised observations."""
    pole = task("cartpole")
    return PPO, ppo.train(PPO, pole, pole.dense_reward, jax.random.key(0))


@pytest.fixture
def saved(cartpole, tmp_path):
    config, result = cartpole
    save_policy(tmp_path / "pole", result, config, task("cartpole"))
    return tmp_path / "pole"


def cartpole_obs(num=64):
    return np.random.default_rng(0).normal(size=(num, 4)).astype(np.float32)


@pytest.mark.parametrize("name", ["ppo", "reinforce", "q_learning"])
def test_a_loaded_policy_acts_as_the_trained_one_bit_for_bit(name, tmp_path):
    learner, chain = agent(name), task("chain")
    settings = {"num_envs": 4, "total_timesteps": 400, **({"hidden": (8,)} if name != "q_learning" else {})}
    settings |= {"num_steps": 32} if name != "reinforce" else {"horizon": 100}
    config = learner.Config(**settings)
    result = rd.agents.base.train(learner, config, chain, chain.sparse_reward, jax.random.key(1))
    save_policy(tmp_path / "p", result, config, chain)
    obs = np.tile(np.arange(20), 8)
    for deterministic in (True, False):
        trained = Policy(learner, config, chain.env, result.state, deterministic=deterministic, seed=3)
        loaded = load_policy(tmp_path / "p", deterministic=deterministic, seed=3)
        assert loaded.config == config
        assert loaded.task is chain
        for _ in range(3):
            np.testing.assert_array_equal(loaded(obs), trained(obs))
    key = jax.random.key(5)
    for mode in (True, False):
        states = (result.state, loaded.state)
        acts = [learner.act(config, chain.env, s, jnp.asarray(obs), key, deterministic=mode) for s in states]
        np.testing.assert_array_equal(*acts)


def test_moments_of_the_observations_belong_to_the_policy(cartpole, saved):
    moments = jax.tree.map(np.asarray, cartpole[1].state.moments)
    loaded = load_policy(saved)
    assert (moments.var < 0.99).any()
    for name in ("mean", "var", "count"):
        np.testing.assert_array_equal(getattr(loaded.state.moments, name), getattr(moments, name))
    weights = jax.tree.map(np.asarray, cartpole[1].state.params["actor"]["params"])
    obs = cartpole_obs()
    x = np.clip((obs - moments.mean) / np.sqrt(moments.var + 1e-8), -10, 10)
    hidden = np.tanh(x @ weights["Dense_0"]["kernel"] + weights["Dense_0"]["bias"])
    logits = hidden @ weights["Dense_1"]["kernel"] + weights["Dense_1"]["bias"]
    np.testing.assert_array_equal(loaded(obs), logits.argmax(-1))


def test_only_what_the_policy_acts_from_is_written(cartpole, saved):
    _, result = cartpole
    assert acted_from(agent("ppo"), PPO, task("cartpole").env) == ["params", "moments", "num_updates"]
    assert acted_from(agent("q_learning"), q_learning.Config(**SMALL), task("chain").env) == ["params", "num_updates"]
    state = load_policy(saved).state
    assert state.opt_state is None
    assert state.lanes is None
    assert int(state.num_updates) == int(result.state.num_updates)
    assert sum(f.stat().st_size for f in saved.rglob("*") if f.is_file()) < 40_000


def test_single_and_batched_observations(saved):
    policy, obs = load_policy(saved), cartpole_obs()
    together = policy(obs)
    assert together.shape == (64,)
    assert [int(policy(row)) for row in obs] == together.tolist()
    assert task("cartpole").env.action_space.contains(policy(obs[0]))
    assert policy(list(obs[0])) == policy(obs[0])
    for shape in [(2, 3, 4), (1,), (7, 1), (5,), ()]:
        with pytest.raises(ValueError, match=rf"expects observations of Box.*got shape {re.escape(str(shape))}\."):
            policy(np.zeros(shape))


def test_samples_differ_and_are_reproducible(saved):
    obs = cartpole_obs()
    policy = load_policy(saved, deterministic=False, seed=1)
    first, second = policy(obs), policy(obs)
    assert (first != second).any()
    policy.reset(seed=1)
    np.testing.assert_array_equal(policy(obs), first)
    np.testing.assert_array_equal(policy(obs, deterministic=True), load_policy(saved)(obs))


def test_a_policy_of_the_host_in_a_loop_of_ones_own(tmp_path):
    envs = gymnasium.make_vec("Pendulum-v1", num_envs=4)
    result = ppo.train_host(PPO, envs, rd.environment_reward(), jax.random.key(0))
    envs.close()
    save_policy(tmp_path / "p", result, PPO, envs)
    with pytest.raises(ValueError, match="belongs to 'Pendulum-v1' as it was made by code of its own"):
        load_policy(tmp_path / "p")
    env = gymnasium.make("Pendulum-v1")
    policy = load_policy(tmp_path / "p", env)
    trained = Policy(agent("ppo"), PPO, policy.env, result.state)
    obs, _ = env.reset(seed=0)
    for _ in range(20):
        action = policy(obs)
        np.testing.assert_array_equal(action, trained(obs[None])[0])
        assert env.action_space.contains(action)
        obs, *_ = env.step(action)
    env.close()
    known = load_policy(tmp_path / "p", task("gymnasium/Pendulum-v1").make())
    assert known(obs) == policy(obs)


class Keyed(gymnasium.Env):
    """Observations in parts, one of them text."""

    observation_space = gymnasium.spaces.Dict(
        {"x": gymnasium.spaces.Box(-1, 1, (2,)), "lamp": gymnasium.spaces.Discrete(3)}
    )
    action_space = gymnasium.spaces.Discrete(3)


def test_dict_observations():
    env = rd.envs.host.SpacesOnly(Keyed())
    state = agent("ppo").init(PPO, env, rd.environment_reward(), jax.random.key(0))
    policy = Policy(agent("ppo"), PPO, env, state)
    rows = [{"x": np.array([i / 8, -i / 8], np.float32), "lamp": i % 3} for i in range(8)]
    batch = {name: np.stack([row[name] for row in rows]) for name in ("x", "lamp")}
    assert [int(policy(row)) for row in rows] == policy(batch).tolist()
    with pytest.raises(ValueError, match=r"expects observations of Dict.*found no 'lamp'"):
        policy({"x": np.zeros(2)})


# --- what is refused ------------------------------------------------------------------------------------------------


def test_saving_refuses_what_it_cannot_keep(cartpole, saved, tmp_path):
    config, result = cartpole
    seeds = jax.tree.map(lambda x: jnp.stack([x, x]), result.state)
    with pytest.raises(ValueError, match="expects the state of one run, got 2 seeds"):
        save_policy(tmp_path / "many", seeds, config, task("cartpole"))
    with pytest.raises(ValueError, match="pole exists already; choose another path, or overwrite=True"):
        save_policy(saved, result, config, task("cartpole"))
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match=r"mine exists already; choose another path\.$"):
        save_policy(tmp_path / "mine", result, config, task("cartpole"), overwrite=True)
    with pytest.raises(TypeError, match="expected a task or an environment, got str"):
        save_policy(tmp_path / "new", result, config, "cartpole")
    with pytest.raises(TypeError, match="dict is not the Config of an agent"):
        save_policy(tmp_path / "new", result, {}, task("cartpole"))
    save_policy(saved, result.state._replace(num_updates=jnp.int32(1)), config, task("cartpole"), overwrite=True)
    assert load_policy(saved).state.num_updates == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "pole"]


def test_loading_refuses_what_does_not_fit(saved, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"there is no policy in .*nowhere"):
        load_policy(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"acts on the observation space Box.*'chain' has Discrete\(20\)"):
        load_policy(saved, task("chain"))
    with pytest.raises(ValueError, match=r"other settings: hidden = \[8\] there, \[64, 64\] here"):
        load_policy(saved, config=ppo.Config(**SMALL, num_epochs=1))
    with pytest.raises(ValueError, match=r"trained on 'cartpole' with no settings, got \{'horizon': 100\}"):
        load_policy(saved, task("cartpole", horizon=100))
    with pytest.raises(ValueError, match="trained on 'cartpole', got 'gymnasium/CartPole-v1'"):
        load_policy(saved, task("gymnasium/CartPole-v1"))
    assert load_policy(saved, task("gymnasium/CartPole-v1").make())(np.zeros(4)) in (0, 1)
    monkeypatch.setattr(policy_files, "FORMAT", 0)
    with pytest.raises(ValueError, match="has format 1, and this version of reward-design reads up to 0"):
        load_policy(saved)


def test_a_task_is_made_again_with_its_settings(tmp_path):
    maze = ("#####", "#S.G#", "#####")
    small = task("point_maze", maze=maze, horizon=50)
    assert recipe(small) == ("point_maze", {"maze": maze, "horizon": 50})
    result = ppo.train(PPO, small, small.sparse_reward, jax.random.key(0))
    save_policy(tmp_path / "p", result, PPO, small)
    assert load_policy(tmp_path / "p").task is small
    with pytest.raises(ValueError, match="trained on 'point_maze' with"):
        load_policy(tmp_path / "p", task("point_maze"))

    own = rd.envs.point_maze.point_maze(maze=maze)
    assert recipe(own) is None
    save_policy(tmp_path / "own", result, PPO, own)
    with pytest.raises(ValueError, match="made by code of its own, which a file cannot hold; give the task"):
        load_policy(tmp_path / "own")
    assert load_policy(tmp_path / "own", own).task is own


def test_settings_that_are_functions_have_to_be_given_again(tmp_path):
    def advice(obs, action):
        return 0.1 * (action == 1)

    config, chain = q_learning.Config(**SMALL, advice=advice), task("chain")
    result = q_learning.train(config, chain, chain.sparse_reward, jax.random.key(0))
    save_policy(tmp_path / "p", result, config, chain)
    with pytest.raises(ValueError, match="function as setting 'advice', which a file cannot hold; give config="):
        load_policy(tmp_path / "p")
    policy = load_policy(tmp_path / "p", config=config)
    obs = np.arange(20)
    np.testing.assert_array_equal(policy(obs), Policy(agent("q_learning"), config, chain.env, result.state)(obs))


def test_damage_is_told_in_one_sentence(saved, tmp_path):
    files = [path for path in saved.rglob("*") if path.is_file() and path.stat().st_size]
    assert len(files) > 8
    for number, file in enumerate(files):
        broken = tmp_path / "broken"
        shutil.copytree(saved, broken)
        copy = broken / file.relative_to(saved)
        data = bytearray(copy.read_bytes())
        data[len(data) // 2] ^= 1 << (number % 7)
        copy.write_bytes(bytes(data))
        with pytest.raises(ValueError, match=r"is damaged: .* is not what was written") as flipped:
            load_policy(broken)
        copy.unlink()
        with pytest.raises(ValueError, match=r"is damaged|there is no policy in") as missing:
            load_policy(broken)
        assert all(str(error.value).count("\n") == 0 for error in (flipped, missing))
        shutil.rmtree(broken)


def test_a_checkpoint_without_its_hashes_is_still_read(saved):
    """What a kill between the two leaves; the run goes on from it."""
    identity = checkpoint.newest(saved).identity
    next(saved.glob(f"*/{checkpoint.SUMS}")).unlink()
    assert checkpoint.newest(saved).identity == identity
    with pytest.raises(ValueError, match=r"where float32\[3\] was expected"):
        checkpoint.restore_part(saved, {"moments": {"mean": np.zeros(3, np.float32)}})
    with pytest.raises(ValueError, match=r"has nothing where float32\[3\] was expected, in no_such_field"):
        checkpoint.restore_part(saved, {"no_such_field": np.zeros(3, np.float32)})


# --- runs -----------------------------------------------------------------------------------------------------------


def trained(folder, name: Any = "cartpole", reward="shaping", **options):
    config = {"num_envs": 4, "num_steps": 32, "num_epochs": 1, "hidden": (8,)}
    options = {"total_timesteps": 256, "evaluations": 2, "config": config, "console": QUIET, **options}
    single.train(name, reward, out=str(folder), **options)
    return folder


def whole_state(run):
    identity = checkpoint.newest(run.folder / "checkpoints").identity
    env = run.task.env
    like = jax.vmap(lambda key: run.agent.init(run.config, env, run.reward, key, None))(
        jax.vmap(jax.random.key)(jnp.zeros(1, jnp.uint32))
    )
    restored = checkpoint.restore(run.folder / "checkpoints", like, identity=identity)
    assert restored is not None
    return jax.tree.map(lambda x: x[0], restored[0])


@pytest.mark.parametrize("name", ["cartpole", "gymnasium/CartPole-v1"])
def test_a_run_gives_back_what_was_trained(name, tmp_path):
    run = load_run(trained(tmp_path / "r", name, "dense"))
    assert (run.task.name, run.label, run.seed, run.finished, run.notes) == (name, "dense", 0, True, ())
    assert run.config.hidden == (8,)
    state, obs = whole_state(run), cartpole_obs()
    for deterministic in (True, False):
        whole = Policy(run.agent, run.config, run.task.env, state, deterministic=deterministic)
        np.testing.assert_array_equal(run.policy(deterministic=deterministic)(obs), whole(obs))
    save_policy(tmp_path / "p", run.state, run.config, run.task)
    np.testing.assert_array_equal(load_policy(tmp_path / "p")(obs), run.policy()(obs))
    with pytest.raises(ValueError, match=r"is the folder of a run; read it with .*load_run"):
        load_policy(tmp_path / "r")


def test_what_the_reward_learned_belongs_to_the_run(tmp_path):
    run = load_run(trained(tmp_path / "r", "chain", "count_bonus"))
    assert run.reward.name
    counts = jax.tree.leaves(run.reward_running)
    np.testing.assert_array_equal(counts, jax.tree.leaves(whole_state(run).reward_state.running))
    assert max(float(np.sum(c)) for c in counts) >= 200


def test_a_reward_that_is_gone_or_changed_is_noted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    text = "from reward_design import pointwise\npay = pointwise('pay', lambda t: t.reward * {factor})\n"
    (tmp_path / "pays_mine.py").write_text(text.format(factor=2.0))
    folder = trained(tmp_path / "r", "chain", "pays_mine:pay")
    assert load_run(folder).notes == ()
    changed = rd.pointwise("pay", lambda t: t.reward * 3.0)
    assert "does not compute what it did" in load_run(folder, reward=changed).notes[0]
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    lines[0]["identity"]["reward"] = "pays_mine:gone"
    plain = [{name: value for name, value in line.items() if name != "crc"} for line in lines]
    (folder / "records.jsonl").write_bytes(b"".join(map(encoded, plain)))
    run = load_run(folder)
    assert run.reward is None
    assert "cannot be made again (reward 'pays_mine:gone'" in run.notes[0]
    assert run.policy()(3) in (0, 1)


def test_a_run_on_a_task_of_ones_own_code(tmp_path):
    hill = task_from_gymnasium("MountainCar-v0", success=lambda t: t.terminated)
    folder = trained(tmp_path / "r", hill, "environment")
    with pytest.raises(ValueError, match="belongs to 'gymnasium/MountainCar-v0' as it was made by code of its own"):
        load_run(folder)
    assert load_run(folder, task=hill).task is hill
    with pytest.raises(ValueError, match="is a run on 'gymnasium/MountainCar-v0', got the task 'chain'"):
        load_run(folder, task=task("chain"))


def test_folders_that_are_no_runs(tmp_path):
    with pytest.raises(ValueError, match="there is no such folder; make one with `reward-design train --out"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is not a run: it has no records"):
        load_run(tmp_path)
    rd.experiments.compare(
        "chain", "sparse", seeds=1, total_timesteps=128, out=tmp_path / "c", report=False, progress=False,
        config={"num_envs": 4, "num_steps": 32, "hidden": (8,)},
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"is a comparison, which keeps no policies; train one .* --task chain"):
        load_run(tmp_path / "c")
    folder = trained(tmp_path / "r", "chain")
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        load_run(folder)
