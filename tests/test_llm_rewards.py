"""Rewards from text: terms and programs against loops in NumPy, transformations, files, forged programs."""

import contextlib
import dataclasses
import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reward_design as rd
from reward_design.envs import task
from reward_design.experiments import designs
from reward_design.llm import (
    CandidateRefused,
    build_reward,
    describe_task,
    load_reward,
    reward_contract,
    save_reward,
    terms_schema,
)
from reward_design.llm.artifact import Artifact, from_text
from reward_design.llm.build import artifact_of, reward_of
from reward_design.llm.terms import SHAPES, parse_terms
from reward_design.rollouts import random_trajectory
from reward_design.testing import check_reward
from tests.hostile.checker import Checker
from tests.hostile.documents import BROKEN, GOOD, PASSING, document
from tests.hostile.forged import FORGED, LANES, export, forged, total
from tests.hostile.legitimate import LEGITIMATE

pytest.importorskip("flatbuffers")

CARTPOLE = task("cartpole")
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
    """Lanes with terminations, truncations and masked rows."""
    example = jax.tree.map(lambda x: x + jnp.ones((), x.dtype), CARTPOLE.example)
    return random_trajectory(example, seed=3)


def unrolled(reward, trajectory):
    params, state = reward.init(jax.random.key(0), jax.tree.map(lambda x: x[0], trajectory))
    return jax.jit(reward.unroll)(params, state, trajectory)[0]


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


# --- terms ----------------------------------------------------------------------------------------------------------


def oracle(term, values, ends, mask):
    """One term, one lane, in plain Python."""
    sign, scale, paid, last = (1 if term.direction == "increase" else -1), term.scale, [], None
    for x, end, real in zip(values, ends, mask):
        if not real:
            paid.append(0.0)
            continue
        near = math.exp(-abs(x) / scale) if term.shape == "exp" else 0.0
        paid.append(
            term.weight
            * {
                "linear": sign * x / scale,
                "tanh": sign * math.tanh(x / scale),
                "exp": near if sign < 0 else 1 - near,
                "threshold": float(x >= scale) if sign > 0 else float(x <= scale),
                "progress": 0.0 if last is None else sign * (x - last) / scale,
            }[term.shape]
        )
        last = None if end else x
    return paid


@pytest.mark.parametrize(("shape", "direction"), list(itertools.product(SHAPES, ("increase", "decrease"))))
def test_terms_pay_their_equation(shape, direction, rollout):
    text = document(shape=shape, direction=direction, weight=-1.5, scale=0.7)
    (term,) = parse_terms(text, CARTPOLE)
    output = unrolled(build_reward(text, CARTPOLE, language="terms"), rollout)
    values = np.abs(rollout.next_obs[..., 2])
    ends = np.asarray(rollout.terminated | rollout.truncated)
    lanes = range(values.shape[1])
    expected = np.array([oracle(term, values[:, i], ends[:, i], rollout.mask[:, i]) for i in lanes]).T
    other = dataclasses.replace(term, direction="increase" if direction == "decrease" else "decrease")
    far = np.array([oracle(other, values[:, i], ends[:, i], rollout.mask[:, i]) for i in lanes]).T
    np.testing.assert_allclose(output.reward, expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(output.reward, far, atol=1e-2)


def test_weights_and_scales_are_params(rollout):
    text = json.dumps({"terms": [GOOD, {**GOOD, "factor": "speed", "shape": "tanh"}]})
    reward = build_reward(text, CARTPOLE, language="terms")
    params, state = reward.init(jax.random.key(0), CARTPOLE.example)
    assert set(params["weights"]) == {"tilt", "speed"}
    np.testing.assert_allclose(params["rewards"]["tilt"]["scale"], 0.1)
    row = jax.tree.map(lambda x: x[0], rollout)._replace(mask=np.ones(rollout.mask.shape[1], bool))
    scored = lambda p: reward.step(p, state, row)[0].terms["tilt"].sum()  # noqa: E731
    doubled = {**params, "weights": {**params["weights"], "tilt": 2.0 * params["weights"]["tilt"]}}
    np.testing.assert_allclose(scored(doubled), 2 * scored(params), rtol=1e-6)


def test_two_terms_of_one_factor_have_names_of_their_own():
    text = json.dumps({"terms": [GOOD, {**GOOD, "shape": "progress"}]})
    reward = build_reward(text, CARTPOLE, language="terms")
    assert set(reward.settings["weights"]) == {"tilt_exp_decrease", "tilt_progress_decrease"}
    assert reward.kind is rd.Kind.CAUSAL
    check_reward(reward, CARTPOLE.example)


@pytest.mark.parametrize("source", BROKEN, ids=range(len(BROKEN)))
def test_broken_documents_are_refused(source):
    with pytest.raises(CandidateRefused) as refused:
        build_reward(source, CARTPOLE, language="terms")
    assert refused.value.stage == "terms"
    assert len(refused.value.reason) > 20


@pytest.mark.parametrize("source", PASSING, ids=range(len(PASSING)))
def test_sound_documents_pass(source):
    jsonschema = pytest.importorskip("jsonschema")
    assert parse_terms(source, CARTPOLE)
    whole = json.loads(source)
    if "plan" not in whole and "scale" in whole["terms"][0]:
        jsonschema.validate(whole, terms_schema(CARTPOLE))


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


def test_terms_are_saved_with_their_task(tmp_path, rollout):
    reward = build_reward(document(), "cartpole", language="terms")
    again = load_reward(save_reward(tmp_path / "x", reward))
    np.testing.assert_array_equal(unrolled(again, rollout).reward, unrolled(reward, rollout).reward)
    with pytest.raises(CandidateRefused, match="must be one of goal"):
        load_reward(tmp_path / "x.reward", "mountain_car")


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


# --- forged programs ------------------------------------------------------------------------------------------------


def claimed(program, used=("obs",)):
    """An artifact that says that a program takes ``obs`` and returns the reward."""
    spec = {"shape": [4], "dtype": "float32", "low": None, "high": None}
    return Artifact("code", "", None, used=used, specs=dict.fromkeys(used, spec), program=program)


def test_an_honest_program_of_this_form_passes(rollout):
    output = unrolled(reward_of(claimed(forged(total))), rollout)
    np.testing.assert_allclose(output.reward, np.where(rollout.mask, rollout.obs.sum(-1), 0), rtol=1e-5)


REASONS = {
    "harmless, checks disabled": "safety checks disabled",
    "callback": "'xla_ffi_python_cpu_callback' is not allowed",
    "unknown call": "'nothing_of_this_name' is not allowed",
    "library": "is not allowed",
    "many rounds": "2,000,000,000 rounds",
    "endless loop": "no constant number of rounds",
    "standing counter": "no constant number of rounds",
    "overflow of int8": "no constant number of rounds",
    "overflow of int32": "no constant number of rounds",
    "overflow of uint8": "no constant number of rounds",
    "wide windows": "computes",
    "large products": "computes",
    "work in a reduction": "computes",
    "endless elsewhere": "no constant number of rounds",
    "large elsewhere": "makes an array of 3,600,000,000 elements",
    "nested program": "a program inside",
    "no derivative": "cannot be read",
    "large array": "makes an array of 3,600,000,000 elements",
    "much work": "computes",
    "random numbers": "the operation rng is not allowed",
    "large constant": "bytes, at most",
    "transform": "the operation fft is not allowed",
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_programs_are_refused(name):
    try:
        program = FORGED[name]()
    except (ValueError, NotImplementedError) as error:
        pytest.fail(f"{name} cannot even be exported: {error}")
    two = ("callback", "unknown call", "nested program")
    with pytest.raises(CandidateRefused) as refused:
        reward_of(claimed(program, ("obs", "next_obs") if name in two else ("obs",)))
    assert refused.value.stage == "verify"
    assert REASONS.get(name, "") in refused.value.reason


def test_a_program_that_grows_with_the_lanes_is_refused_where_it_is_used(rollout):
    def cube(obs):
        x = obs[:, 0]
        return ((x[:, None, None] * x[None, :, None] * x[None, None, :]).sum(axis=(1, 2)),)

    reward = reward_of(claimed(forged(cube)))
    assert unrolled(reward, rollout).reward.shape == rollout.mask.shape
    wide = jax.tree.map(lambda x: jnp.tile(x[:, :1], (1, 1024, *[1] * (x.ndim - 2))), rollout)
    with pytest.raises(CandidateRefused, match="makes an array of") as refused:
        unrolled(reward, wide)
    assert refused.value.stage == "verify"


def test_flipped_bytes_of_a_program_give_a_refusal_or_a_reward(rollout):
    honest = bytearray(forged(total))
    refused = 0
    for place in np.linspace(0, len(honest) - 1, 15).astype(int):
        changed = bytearray(honest)
        changed[place] ^= 0x10
        with contextlib.suppress(CandidateRefused):
            reward_of(claimed(bytes(changed)))
            continue
        refused += 1
    assert refused >= 2  # how many depends on the path of this file, which programs keep as text


def test_exports_for_other_platforms_only_are_refused():
    with pytest.raises(CandidateRefused, match="expected cpu among them"):
        reward_of(claimed(forged(total, platforms=("cuda",))))
    assert str(LANES) == "b"
    assert export.maximum_supported_calling_convention_version >= 10
