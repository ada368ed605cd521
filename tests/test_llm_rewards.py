"""Rewards from programs of models against loops in NumPy, transformations, and the files that keep them."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reward_design as rd
from reward_design.envs import task
from reward_design.experiments import designs
from reward_design.llm import CandidateRefused, build_reward, describe_task, load_reward, reward_contract, save_reward
from reward_design.llm.artifact import from_text
from reward_design.llm.build import artifact_of, reward_of
from reward_design.llm.terms import parse_terms
from reward_design.testing import check_reward
from tests.hostile.checker import Checker
from tests.hostile.legitimate import LEGITIMATE
from tests.reward_lanes import CARTPOLE, lanes, unrolled

pytest.importorskip("flatbuffers")


CHOSEN = ("components", "raw components", "integer", "switch", "progress", "visited")


@pytest.fixture(scope="module")
def artifacts():
    """Artifacts of honest programs, each made once."""
    checker, made = Checker(), {}

    def artifact(name):
        if name not in made:
            made[name], refused, _ = checker.check(LEGITIMATE[name])
            assert refused is None, f"{name}: {refused}"
        return made[name]

    yield artifact
    checker.close()


@pytest.fixture(scope="module")
def rollout():
    return lanes()


def native(name):
    namespace = {"jax": jax, "jnp": jnp, "lax": jax.lax, "math": math}
    exec(LEGITIMATE[name], namespace)
    return namespace


def loop(namespace, artifact, trajectory):
    """The same Python, called step by step for each lane, memory set back where an episode ended."""
    fn, remembers = namespace["reward"], bool(artifact.memory)
    num_steps, num_lanes = trajectory.mask.shape
    rewards = np.zeros((num_steps, num_lanes), np.float32)
    for lane in range(num_lanes):
        memory = namespace["initial_memory"]() if remembers else None
        for t in range(num_steps):
            if not trajectory.mask[t, lane]:
                continue
            row = jax.tree.map(lambda x: jnp.asarray(x[t, lane]), trajectory)  # noqa: B023
            given = {name: getattr(row, name) for name in artifact.used}
            result = fn(**given, memory=memory) if remembers else fn(**given)
            if remembers:
                memory = result[-1]
            rewards[t, lane] = result[0] if isinstance(result, tuple) else result
            if remembers and (trajectory.terminated[t, lane] or trajectory.truncated[t, lane]):
                memory = namespace["initial_memory"]()
    return rewards


# --- code -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n if n in CHOSEN else pytest.param(n, marks=pytest.mark.slow) for n in LEGITIMATE])
def test_a_program_pays_what_its_python_pays(name, artifacts, rollout):
    artifact = artifacts(name)
    output = unrolled(reward_of(artifact), rollout)
    expected = loop(native(name), artifact, rollout)
    np.testing.assert_allclose(output.reward, expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(sum(output.terms.values()), output.reward, rtol=2e-5, atol=2e-5)
    if name != "constant":
        assert not np.allclose(output.reward, np.roll(expected, 1, axis=0), atol=1e-3)


def test_components_that_do_not_add_up_get_a_remainder(artifacts, rollout):
    apart = unrolled(reward_of(artifacts("raw components")), rollout)
    assert set(apart.terms) == {"a", "remainder"}
    np.testing.assert_allclose(apart.terms["remainder"], apart.terms["a"], rtol=1e-6)
    assert set(unrolled(reward_of(artifacts("components")), rollout).terms) == {"upright", "centred"}


@pytest.mark.parametrize("name", ["components", "progress"])
def test_a_program_keeps_the_contract_of_rewards(name, artifacts):
    reward = reward_of(artifacts(name))
    assert reward.kind is (rd.Kind.CAUSAL if name == "progress" else rd.Kind.POINTWISE)
    check_reward(reward, CARTPOLE.example)


def test_a_program_under_vmap_over_seeds_and_grad(artifacts, rollout):
    reward, fn = reward_of(artifacts("components")), native("components")["reward"]
    seeds = jax.tree.map(lambda x: jnp.stack([x, x[::-1]]), rollout)

    def score(next_obs, trajectory):
        return unrolled(reward, trajectory._replace(next_obs=next_obs)).reward.sum()

    values = jax.vmap(score)(seeds.next_obs, seeds)
    slopes = jax.vmap(jax.grad(score))(seeds.next_obs, seeds)
    nested = jax.vmap(jax.vmap(score))(*jax.tree.map(lambda x: jnp.stack([x, x]), (seeds.next_obs, seeds)))
    wanted = jax.vmap(jax.vmap(jax.grad(lambda x, a: fn(x, a)[0])))(rollout.next_obs, rollout.action)
    wanted = jnp.where(rollout.mask[..., None], wanted, 0.0)
    np.testing.assert_allclose(values[0], score(rollout.next_obs, rollout), rtol=1e-5)
    np.testing.assert_allclose(nested, np.stack([values, values]), rtol=1e-5)
    np.testing.assert_allclose(slopes[0], wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(slopes[1], wanted[::-1], rtol=1e-4, atol=1e-5)
    assert np.abs(wanted).max() > 0.1


def test_a_program_in_double_precision(artifacts, rollout, float64):
    wide = jax.tree.map(lambda x: np.asarray(x, float) if x.dtype.kind == "f" else np.asarray(x), rollout)
    output = unrolled(reward_of(artifacts("components")), wide)
    assert output.reward.dtype == np.float64
    np.testing.assert_allclose(output.reward, loop(native("components"), artifacts("components"), rollout), atol=1e-5)


def test_another_observation_is_an_error_that_says_so(artifacts, rollout):
    reward = reward_of(artifacts("components"))
    with pytest.raises(ValueError, match=r"reads next_obs of shape \[B, ...\] = .* designed for"):
        unrolled(reward, rollout._replace(next_obs=rollout.next_obs[..., :3]))


def test_a_missing_info_is_an_error_that_says_so():
    maze = task("point_maze")
    reward = build_reward("def reward(info):\n    return -1.0 * info['hit_wall']\n", maze, time_limit=60.0)
    params, state = reward.init(jax.random.key(0), maze.example)
    assert reward.step(params, state, maze.example)[0].reward == 0.0
    with pytest.raises(ValueError, match=r"info\['hit_wall'\], which this environment does not give"):
        reward.step(params, state, maze.example._replace(info={}))


# --- prompts --------------------------------------------------------------------------------------------------------


def test_a_task_is_described_without_its_rewards():
    text = describe_task("point_maze")
    assert "obs: float32 array of shape (4,), in [-1, 1]" in text
    assert "info['hit_wall']: bool scalar" in text
    assert "- hit_wall [1], less is better" in text
    assert "any" in describe_task("cartpole")


def test_the_examples_in_the_contracts_pass(artifacts):
    code = reward_contract(CARTPOLE, "code").split("```python\n")[1].split("```")[0]
    assert build_reward(code, CARTPOLE, time_limit=60.0).kind is rd.Kind.POINTWISE
    for name in ("cartpole", "four_rooms", "mountain_car"):
        assert parse_terms(reward_contract(name, "terms").splitlines()[-1], task(name))


# --- files ----------------------------------------------------------------------------------------------------------


def test_a_saved_reward_is_the_same_reward(artifacts, rollout, tmp_path):
    for name in ("components", "progress"):
        reward = reward_of(artifacts(name))
        path = save_reward(tmp_path / name, reward)
        assert path.name == f"{name}.reward"
        again = load_reward(path)
        assert artifact_of(again) == artifact_of(reward)
        np.testing.assert_array_equal(unrolled(again, rollout).reward, unrolled(reward, rollout).reward)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["components.reward", "progress.reward"]


@pytest.mark.parametrize("version", ["0.0.1", jax.__version__])
def test_a_program_that_is_not_accepted_says_if_another_jax_wrote_it(version, artifacts, tmp_path):
    good = artifacts("components")
    old = dataclasses.replace(
        good, program=good.program[:-40], provenance={**good.provenance, "versions": {"jax": version}}
    )
    (tmp_path / "old.reward").write_text(old.to_text())
    with pytest.raises(CandidateRefused, match=r"old.reward': the program cannot be read") as refused:
        load_reward(tmp_path / "old.reward")
    told = f"built with JAX {version}, and here is {jax.__version__}: build it anew from its entry 'source'"
    assert (told in str(refused.value)) == (version != jax.__version__)


def test_a_file_is_a_design(artifacts, tmp_path):
    path = str(save_reward(tmp_path / "upright", reward_of(artifacts("components"))))
    assert artifact_of(designs.resolve(path, CARTPOLE)).source == LEGITIMATE["components"]
    assert list(designs.labelled([path, "sparse"])) == ["upright", "sparse"]
    assert designs.agent_of(path, "ppo") == "ppo"
    assert designs.with_auxiliary([path, "barfi"], "misaligned") == [path, "barfi/misaligned"]
    with pytest.raises(CandidateRefused, match="and task 'chain' has next_obs: int32 scalar"):
        designs.resolve(path, task("chain"))


def test_other_rewards_cannot_be_saved(tmp_path):
    with pytest.raises(TypeError, match="was not made by build_reward"):
        save_reward(tmp_path / "x", rd.clip())


def test_every_changed_byte_of_a_file_is_noticed(artifacts, tmp_path):
    text = bytearray(artifacts("components").to_text(), "utf-8")
    path = tmp_path / "x.reward"
    for place in np.linspace(0, len(text) - 3, 60).astype(int):
        changed = bytearray(text)
        changed[place] ^= 1
        path.write_bytes(changed)
        if json_equal(changed, text):
            continue
        with pytest.raises(CandidateRefused) as refused:
            load_reward(path)
        assert refused.value.stage == "artifact"


def json_equal(one, other):
    """A changed byte between the entries (a space that became another) changes nothing."""
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"format": 1}', b"x" * (9 * 2**20)]
)
def test_other_files_are_refused(content, tmp_path):
    (tmp_path / "x.reward").write_bytes(content)
    with pytest.raises(CandidateRefused) as refused:
        load_reward(tmp_path / "x.reward")
    assert refused.value.stage == "artifact"


LIES = {
    "used": ("next_obs", "obs"),
    "terms": ("upright", "upright"),
    "memory": ({"dtype": "float32", "shape": [], "data": 0.0},),
    "specs": {"obs": {"shape": [4], "dtype": "object", "low": None, "high": None}},
    "program": b"",
    "remainder": 3,
    "task": ("nothing", {}),
}


@pytest.mark.parametrize("entry", ["used", "terms", "memory", "specs", "program"])
def test_a_file_that_lies_with_a_right_hash_is_refused(entry, artifacts):
    artifact = dataclasses.replace(artifacts("components"), **{entry: LIES[entry]})
    with pytest.raises(CandidateRefused) as refused:
        reward_of(from_text(artifact.to_text()))
    assert refused.value.stage == "verify"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, 2.0], "x", None])
def test_a_memory_that_lies_is_refused(value, artifacts):
    artifact = artifacts("progress")
    memory = ({**artifact.memory[0], "data": value}, *artifact.memory[1:])
    with pytest.raises(CandidateRefused) as refused:
        reward_of(dataclasses.replace(artifact, memory=memory))
    assert refused.value.stage == "verify"
