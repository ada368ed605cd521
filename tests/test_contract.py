"""Every public reward factory keeps the contract, with array and with dictionary observations."""

import inspect

import pytest

import reward_design as rd
from reward_design import bilevel, llm, preferences, redistribution
from reward_design.testing import check_reward
from tests.cases import CASES, array_example, dict_example


def factories() -> set[str]:
    """Public functions of the package that return a Reward."""
    modules = (rd, bilevel, llm, preferences, redistribution)
    public = {name: getattr(module, name) for module in modules for name in module.__all__}
    functions = {name: value for name, value in public.items() if inspect.isfunction(value)}
    found = {name for name, fn in functions.items() if inspect.signature(fn).return_annotation is rd.Reward}
    return found - {"build_reward", "load_reward"}  # for the observations of one task: tests/test_llm_rewards.py


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_reward_keeps_the_contract(case):
    reward = case.build()
    assert reward.kind is case.kind
    check_reward(reward, array_example())


@pytest.mark.parametrize(
    "case", {case.factory: case for case in reversed(CASES)}.values(), ids=lambda case: case.factory
)
def test_reward_keeps_the_contract_with_dictionary_observations(case):
    check_reward(case.build(), dict_example())


def test_every_public_factory_has_a_row():
    assert factories() == {case.factory for case in CASES}
    assert len({case.id for case in CASES}) == len(CASES)


def test_a_missing_row_would_be_noticed():
    assert {"potential_shaping", "chain", "clip"} < factories()
    assert {"describe", "walk", "check_gamma"}.isdisjoint(factories())
