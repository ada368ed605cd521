"""Forged programs, as no exporter writes them, are refused; honest ones of the same form pass."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reward_design.llm import CandidateRefused
from reward_design.llm.artifact import Artifact
from reward_design.llm.build import reward_of
from tests.hostile.forged import FORGED, LANES, export, forged, total
from tests.reward_lanes import lanes, unrolled

pytest.importorskip("flatbuffers")


@pytest.fixture(scope="module")
def rollout():
    return lanes()


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
