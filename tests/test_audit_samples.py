"""The audit from samples: mistakes and parts of a difference, ends of episodes, time limits, what stays unsettled."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

import reward_design as rd
from reward_design.distance import SampledDistances, audit, sample_tabular, sampled_parts, sampled_starc
from reward_design.distance.audit_sampled import draw, known_potentials, worst_pair
from reward_design.distance.ends import end_finding, potential_at_ends, time_limit_finding
from reward_design.distance.policy_search import Searched, search
from reward_design.envs import task
from reward_design.envs.base import MissingPotentialError
from reward_design.experiments import audit_page, distance_table


def searched(of_task, designed, early=None, steps=200):
    """What a search would leave of policies with these returns."""
    num = len(of_task)
    return Searched(
        np.zeros((num, 1, 1)), of_task, designed, designed if early is None else early, {}, np.zeros(num, bool),
        lambda *_: np.zeros(1), steps,
    )  # fmt: skip


def test_worst_pair_of_policies_against_all_pairs():
    rng = np.random.default_rng(0)
    of_task, designed = rng.normal(size=(2, 40))
    tried = searched(of_task, designed)
    allowed = designed[None, :] >= designed[:, None]
    expected = (of_task[:, None] - of_task[None, :])[allowed].max() / np.ptp(of_task)
    regret, better, worse = worst_pair(tried)
    assert regret == pytest.approx(expected)
    assert of_task[better] - of_task[worse] == pytest.approx(regret * np.ptp(of_task))
    assert designed[worse] >= designed[better]


def test_a_task_that_is_sampled():
    pendulum = task("pendulum", horizon=50)
    harmless = rd.chain(rd.environment_reward(), rd.potential_shaping(pendulum.potential, gamma=pendulum.gamma))
    kwargs = {"num_samples": 600, "population": 8}
    good = audit(pendulum, harmless, **kwargs)
    assert not good.exact
    assert good.verdict.startswith("Still the task")
    assert good.interval[1] < 1e-3
    minus = audit(pendulum, rd.pointwise("minus", lambda t: -t.reward), **kwargs)
    assert minus.verdict.startswith("Close to the opposite of the task: distance 2 of 2")
    bad = audit(pendulum, pendulum.auxiliary["misaligned"], **kwargs)
    assert bad.verdict.startswith("Not the same task")
    assert bad.interval[0] > 0.5
    assert bad.worst_regret > 0.2
    page = audit_page.render(bad, pendulum, pendulum.auxiliary["misaligned"])
    assert page.count("data:image/gif;base64,") == 2


def test_a_task_that_samples_never_show_is_not_settled():
    car = task("mountain_car", horizon=40)
    found = audit(car, car.auxiliary["misaligned"], num_samples=300, population=4)
    assert found.verdict.startswith("Not settled: on these samples the task itself cannot be told")


def test_a_design_with_memory_is_sampled():
    def init(key, example):
        return (), rd.State(episode=jnp.zeros_like(example.reward))

    def step(params, state, t):
        return jnp.where(state.episode > 3, 1.0, 0.0), state._replace(episode=state.episode + 1)

    late = rd.from_step("late", init, step)
    chain = task("chain")
    found = audit(chain, rd.weighted_sum(task=rd.environment_reward(), late=late), num_samples=800, population=4)
    assert not found.exact
    assert found.distance > 0.1


def test_sampled_parts():
    model = task("random_mdp").tabular()
    rng = np.random.default_rng(1)
    noise, phi = rng.normal(size=model.reward.shape), rng.normal(size=len(model.terminal))
    redistribution = noise - (model.transition * noise).sum(-1, keepdims=True)
    shaped = 1.5 * model.reward + model.gamma * phi - phi[:, None, None]
    batch = sample_tabular(model, num_samples=3000, num_next=16)
    scale, shares = sampled_parts(model.reward, shaped, batch, gamma=model.gamma)
    assert scale == pytest.approx(1.5, abs=1e-9)
    assert shares["residual"] == 0
    assert shares["potential"] > 0.1
    scale, shares = sampled_parts(model.reward, model.reward + redistribution, batch, gamma=model.gamma)
    assert scale == pytest.approx(1, abs=0.1)
    assert shares["redistribution"] > 0.7


def test_short_recorded_episodes_and_a_bonus_at_the_end():
    """A bonus b for ending is shaping by a constant potential, -b/γ, that also takes (1 - γ) b/γ off each step."""
    cartpole = task("gymnasium/CartPole-v1")
    bonus = rd.pointwise("bonus", lambda t: jnp.where(t.terminated, 5.0, 0.0))
    design = rd.weighted_sum(task=rd.environment_reward(), bonus=bonus)
    batch = draw(cartpole, design, num_samples=300, steps=200, seed=0)
    assert batch.num_samples >= 300
    gamma = 0.9
    scale, shares = sampled_parts(cartpole.true_reward, design, batch, gamma=gamma)
    assert scale == pytest.approx(1 - 5 * (1 - gamma) / gamma, abs=1e-6)
    assert shares["residual"] < 1e-9
    assert sampled_starc(cartpole.true_reward, design, batch, gamma=gamma).distance < 1e-6
    fatal = rd.weighted_sum(task=rd.environment_reward(), bonus=bonus, weights={"bonus": 4.0})
    assert sampled_starc(cartpole.true_reward, fatal, batch, gamma=gamma).distance > 1.9


def forgets_the_end(potential, gamma):
    """Shaping that is not told that the episode is over."""
    return rd.pointwise(
        "forgets", lambda t: t.reward + gamma * potential(t.next_obs).astype(float) - potential(t.obs).astype(float)
    )


@pytest.mark.parametrize("name", ["cartpole", "gymnasium/CartPole-v1"])
def test_a_potential_that_forgets_the_end_is_found_in_samples(name):
    cartpole = task(name)
    gamma = cartpole.gamma

    def height(obs):
        return 5.0 + 3.0 * jnp.cos(2.0 * obs[..., 2])

    wrong, right = forgets_the_end(height, gamma), rd.potential_shaping(height, gamma=gamma)
    batch = draw(cartpole, wrong, num_samples=1500, steps=200, seed=0)
    phi = potential_at_ends(cartpole.true_reward, wrong, batch, gamma=gamma, potentials=[height])
    rows = batch.transitions()
    assert phi is not None
    np.testing.assert_allclose(phi, height(rows.next_obs)[rows.terminated], atol=1e-2)
    for harmless in (cartpole.true_reward, rd.chain(rd.environment_reward(), right)):
        assert potential_at_ends(cartpole.true_reward, harmless, batch, gamma=gamma, potentials=[height]) is None
    other = rd.pointwise("other", lambda t: t.obs[..., 0] ** 3 - 2.0 * t.terminated)
    assert potential_at_ends(cartpole.true_reward, other, batch, gamma=gamma, potentials=[height]) is None
    found = end_finding(cartpole, wrong, batch, gamma, [height])
    assert found.check == "terminal potential"
    assert found.concern
    assert found.evidence["potential at the end"] == pytest.approx(phi.mean())
    assert not end_finding(cartpole, rd.chain(rd.environment_reward(), right), batch, gamma, [height]).concern


def test_the_time_limit_from_a_search():
    pendulum = task("pendulum", horizon=30)
    batch = draw(pendulum, rd.environment_reward(), num_samples=100, steps=30, seed=0)
    of_task, whole, early = np.array([0.0, 4.0, 10.0]), np.array([1.0, 3.0, 2.0]), np.array([0.5, 0.75, 2.0])
    (found,) = time_limit_finding(rd.environment_reward(), batch, searched(of_task, whole, early, 30), pendulum)
    assert found.concern
    assert found.evidence == {"second half": 0.75, "change": pytest.approx(0.6)}
    assert "another policy of the search would be paid best, worth 60 % of the range of task returns more" in found.text
    (calm,) = time_limit_finding(rd.environment_reward(), batch, searched(of_task, whole, whole / 2, 30), pendulum)
    assert not calm.concern
    grabs = rd.pointwise("grabs", lambda t: t.reward + 7.0 * t.truncated)
    _, cut = time_limit_finding(grabs, batch, searched(of_task, whole, whole, 30), pendulum)
    assert cut.concern
    assert cut.evidence["paid for the cut"] == pytest.approx(7, rel=1e-5)


def test_what_the_first_half_pays_is_the_return_of_a_shorter_search():
    pendulum = task("pendulum", horizon=30)
    samples = draw(pendulum, rd.environment_reward(), num_samples=60, steps=30, seed=0)
    kwargs = {"gamma": 0.9, "population": 4, "generations": 1}
    long, short = (
        search(pendulum, pendulum.auxiliary["misaligned"], samples.obs, steps=steps, **kwargs) for steps in (12, 6)
    )
    np.testing.assert_allclose(long.designed_early, short.designed, rtol=1e-5)
    assert np.abs(long.designed - long.designed_early).max() > 1e-3


def test_a_difference_that_looks_like_shaping_is_noted():
    far = np.where(np.eye(3), 0.0, 1.0)
    outside = np.where(np.eye(3), 0.0, 0.1)
    outside[0, 1] = outside[1, 0] = 0.9
    outside[0, 2] = outside[2, 0] = 0.9
    blank = np.array([False, False, True])
    found = SampledDistances(far, far, far, outside, blank, 5, "")
    first, second = distance_table._notes(["a", "b", "c"], found)
    assert "c cannot be told" in first
    assert second.endswith("between a and b (90 %).")
    assert list(distance_table._notes(["a"], SampledDistances(*[np.zeros((1, 1))] * 4, blank[:1], 5, ""))) == []


def test_a_missing_potential_is_left_out_and_an_error_in_one_is_shown():
    def missing(obs):
        raise MissingPotentialError("task 'x' has no potential")

    def broken(obs):
        return obs["position"]

    cartpole = task("cartpole")
    samples = draw(cartpole, rd.environment_reward(), num_samples=20, steps=10, seed=0)
    assert known_potentials(cartpole, samples) == [cartpole.potential]
    assert known_potentials(replace(cartpole, potential=missing), samples) == []
    with pytest.raises((TypeError, IndexError)):
        known_potentials(replace(cartpole, potential=broken), samples)
