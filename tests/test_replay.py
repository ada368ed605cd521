"""The replay against lists in plain Python, and prioritised sampling against NumPy."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from reward_design.agents import priorities, replay
from reward_design.core import Transition
from reward_design.testing import random_trajectory

LANES, STEPS, CAPACITY = 3, 12, 20


def example(lanes=LANES):
    flag = np.zeros(lanes, bool)
    obs = {"image": np.full((lanes, 2, 2), 255, np.uint8), "glyphs": np.full((lanes, 4), 3000, np.int16)}
    return Transition(obs, np.full(lanes, 5, np.int32), obs, np.zeros(lanes, np.float32), flag, flag, ~flag, {})


def rollouts(num):
    """Rollouts that follow each other: the first observation of one is the last successor of the one before."""
    whole = random_trajectory(example(), seed=0, time=num * STEPS, lanes=LANES)
    return [jax.tree.map(lambda x, i=i: x[i * STEPS : (i + 1) * STEPS], whole) for i in range(num)]


@pytest.fixture(scope="module")
def filled():
    """A replay after five rollouts, and what each lane's newest rows were."""
    insert = jax.jit(replay.insert)
    buffer = replay.empty(jax.tree.map(jnp.asarray, example()), jnp.zeros(LANES), CAPACITY)
    lists = [collections.deque(maxlen=CAPACITY) for _ in range(LANES)]
    for number, rows in enumerate(rollouts(5)):
        episode = 100.0 * number + np.arange(STEPS)[:, None] + np.zeros(LANES)
        buffer = insert(buffer, rows, episode.astype(np.float32))
        for t, lane in np.argwhere(rows.mask):
            lists[lane].append((jax.tree.map(lambda x, t=t, lane=lane: x[t, lane], rows), np.float32(episode[t, lane])))
    return buffer, lists


def newest_first(buffer, lane):
    """Flat indices of a lane, oldest row first."""
    held = int(buffer.count[lane])
    return [(int(buffer.cursor[lane]) - held + i) % CAPACITY * LANES + lane for i in range(held)]


def test_every_lane_keeps_its_newest_rows_and_no_masked_ones(filled):
    buffer, lists = filled
    assert buffer.rows.obs["image"].dtype == np.uint8
    assert buffer.rows.obs["glyphs"].dtype == np.int16
    for lane, kept in enumerate(lists):
        window = replay.windows(buffer, jnp.asarray(newest_first(buffer, lane)), 1)
        assert window.rows.mask.all()
        assert len(kept) == window.last.size
        for i, (row, episode) in enumerate(kept):
            got = jax.tree.map(lambda x, i=i: x[0, i], window.rows._replace(mask=()))
            jax.tree.map(np.testing.assert_array_equal, got, row._replace(mask=()))
            assert window.episode[0, i] == episode


def test_windows_end_with_the_episode_and_at_the_newest_row(filled):
    buffer, lists = filled
    cut = 0
    for lane, kept in enumerate(lists):
        window = replay.windows(buffer, jnp.asarray(newest_first(buffer, lane)), 4)
        for i in range(len(kept)):
            expected = []
            for row, _ in list(kept)[i : i + 4]:
                expected.append(row.reward)
                if row.terminated or row.truncated:
                    break
            count = int(window.rows.mask[:, i].sum())
            assert count == len(expected) == window.last[i] + 1
            np.testing.assert_array_equal(window.rows.reward[:count, i], expected)
            final = replay.last_row(window, window.rows.next_obs)["glyphs"][i]
            np.testing.assert_array_equal(final, kept[i + count - 1][0].next_obs["glyphs"])
            cut += count < 4
    assert cut > 10


def test_windows_do_not_cross_an_episode_that_was_left_unfinished():
    flag = np.zeros((4, 1), bool)
    obs = np.array([0.0, 1.0, 7.0, 8.0], np.float32)[:, None, None]
    rows = Transition(obs, np.zeros((4, 1)), obs + 1, np.ones((4, 1), np.float32), flag, flag, ~flag, {})
    first = jax.tree.map(lambda x: jnp.asarray(x[0]), rows)
    window = replay.windows(replay.insert(replay.empty(first, (), 8), rows, ()), jnp.arange(4), 3)
    assert window.last.tolist() == [1, 0, 1, 0]


def test_rows_are_drawn_uniformly_over_what_is_held(filled):
    buffer, _ = filled
    held = [i for lane in range(LANES) for i in newest_first(buffer, lane)]
    drawn = np.asarray(replay.draw(buffer, jax.random.key(0), (30_000,)))
    counts = np.array([np.sum(drawn == i) for i in held])
    assert counts.sum() == drawn.size
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    uneven = buffer._replace(count=jnp.array([2, 0, 5]), cursor=jnp.array([2, 0, 5]))
    counts = collections.Counter(np.asarray(replay.draw(uneven, jax.random.key(0), (7_000,))).tolist())
    assert set(counts) == {0, 3, 2, 5, 8, 11, 14}
    assert scipy.stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_a_rollout_longer_than_the_ring_leaves_its_newest_rows():
    rows = rollouts(1)[0]
    buffer = replay.insert(replay.empty(jax.tree.map(jnp.asarray, example()), (), 4), rows, ())
    assert buffer.count.tolist() == [4] * LANES
    for lane in range(LANES):
        np.testing.assert_array_equal(
            np.sort(buffer.rows.reward[:, lane]), np.sort(rows.reward[rows.mask[:, lane], lane][-4:])
        )


def test_inserting_changes_the_donated_buffers_in_place():
    rows, episode = rollouts(1)[0], np.zeros((STEPS, LANES), np.float32)
    costs = []
    for capacity in (50, 5_000):
        buffer = replay.empty(jax.tree.map(jnp.asarray, example()), jnp.zeros(LANES), capacity)
        made = jax.jit(replay.insert, donate_argnums=0).lower(buffer, rows, episode).compile().memory_analysis()
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(buffer))
        assert made.alias_size_in_bytes >= 0.99 * size
        costs.append(made.temp_size_in_bytes)
    assert costs[0] == costs[1]


def test_a_replay_larger_than_the_machine_is_refused():
    with pytest.raises(
        ValueError, match=r"a replay of 3,000,000,000,000,000 transitions needs .* GiB \(.*lower capacity"
    ):
        replay.empty(jax.tree.map(jnp.asarray, example()), jnp.zeros(LANES), 10**15)


# --- priorities -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ranked():
    """A tree of three levels after many overlapping changes, and the priorities as an array."""
    rng = np.random.default_rng(0)
    size, expected, highest = 1_500, np.zeros(1_500), 1.0
    tree, assign = priorities.empty(size), jax.jit(priorities.assign)
    for _ in range(30):
        index = rng.choice(size, 40, replace=False)
        expected[index] = rng.exponential(size=40).astype(np.float32)
        highest = max(highest, expected.max())
        tree = assign(tree, jnp.asarray(index), jnp.asarray(expected[index], jnp.float32))
    assert tree.highest == pytest.approx(highest)
    return tree, expected


def test_all_sums_are_those_of_the_priorities(ranked):
    tree, expected = ranked
    assert [level.size for level in tree.levels] == [1_504, 64, 32]
    for number, level in enumerate(tree.levels):
        padded = np.zeros(level.size * 32**number)
        padded[: expected.size] = expected
        np.testing.assert_allclose(level, padded.reshape(level.size, -1).sum(axis=1), rtol=1e-5)


def test_rows_are_drawn_in_proportion_to_their_priorities(ranked):
    tree, expected = ranked
    uniform = jax.random.uniform(jax.random.key(0), (200, 500))
    index, probability = jax.vmap(lambda u: priorities.draw(tree, u))(uniform)
    np.testing.assert_allclose(probability, (expected / expected.sum())[index], rtol=1e-4)
    counts = np.bincount(np.asarray(index).ravel(), minlength=expected.size)
    share = expected / expected.sum() * counts.sum()
    assert (counts[expected == 0] == 0).all()
    often = share > 20
    assert np.abs(counts[often] / share[often] - 1).max() < 0.6
    assert np.mean((counts[often] - share[often]) ** 2 / share[often]) < 1.1  # strata make it smaller than chance


def test_importance_weights_are_the_formula(ranked):
    _, expected = ranked
    probability = (expected / expected.sum())[expected > 0][:50]
    weight = (1_500 * probability) ** -0.7
    got = priorities.importance(jnp.asarray(probability), 1_500, 0.7)
    np.testing.assert_allclose(got, weight / weight.max(), rtol=1e-4)


def test_an_index_beyond_the_end_changes_nothing(ranked):
    tree, _ = ranked
    after = priorities.assign(tree, jnp.array([1_504, 10_000]), jnp.ones(2))
    jax.tree.map(np.testing.assert_array_equal, after.levels, tree.levels)
