"""Rewards from terms: their equation in plain Python, params, names, broken documents, files."""

import dataclasses
import itertools
import json
import math

import jax
import numpy as np
import pytest

import reward_design as rd
from reward_design.llm import CandidateRefused, build_reward, load_reward, save_reward, terms_schema
from reward_design.llm.terms import SHAPES, parse_terms
from reward_design.testing import check_reward
from tests.hostile.documents import BROKEN, GOOD, PASSING, document
from tests.reward_lanes import CARTPOLE, lanes, unrolled

pytest.importorskip("flatbuffers")


@pytest.fixture(scope="module")
def rollout():
    return lanes()


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


def test_terms_are_saved_with_their_task(tmp_path, rollout):
    reward = build_reward(document(), "cartpole", language="terms")
    again = load_reward(save_reward(tmp_path / "x", reward))
    np.testing.assert_array_equal(unrolled(again, rollout).reward, unrolled(reward, rollout).reward)
    with pytest.raises(CandidateRefused, match="must be one of goal"):
        load_reward(tmp_path / "x.reward", "mountain_car")
