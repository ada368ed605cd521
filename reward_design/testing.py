"""The contract of a reward as one check, for the package's own rewards and for yours."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reward_design.combinators import freeze_running
from reward_design.core import Kind, Output, Params, Reward, State, Transition
from reward_design.rollouts import LANES, TIME, at, episode_number, mixed, random_trajectory, with_garbage

TOLERANCE = 1e-5
FAST_COMPILE = {"xla_backend_optimization_level": 0}
"""Everything here is compiled once and run a few times."""


class ContractError(AssertionError):
    """A reward breaks a clause of the contract."""


def check_reward(reward: Reward, example: Transition) -> None:
    """Check that a reward keeps the contract that agents, adapters and experiments rely on.

    Scores random rollouts of three lanes with terminations, truncations, both at once, and masked rows. Checked are:
    shapes and dtype, finite rewards, terms that sum to the reward, ``step`` = ``unroll``, masked rows (no effect
    whatever they hold, reward 0), ended lanes that restart, independent lanes, the declared kind, jit = no jit, vmap
    over params, finite gradients with respect to params, one trace on repeated calls, a stable state structure, inputs
    left alone.

    Args:
        reward: the reward, of any kind.
        example: a batched transition of the right shapes and dtypes with leading axis ``B >= 1``, for example
            ``task.example``. Integers are drawn up to the largest in the example (at least 1), floats around its
            values.

    Raises:
        ContractError: with one sentence that names the clause.

    Example:
        >>> import numpy as np, reward_design as rd
        >>> from reward_design.testing import check_reward
        >>> zeros, flags = np.zeros((1, 4)), np.zeros((3, 1), bool)
        >>> row = rd.Transition(zeros, np.zeros(1, int), zeros, np.zeros(1), *flags)
        >>> check_reward(rd.pointwise("speed", lambda t: abs(t.next_obs[:, 1])), row)
    """
    if not isinstance(reward, Reward):
        raise TypeError(
            f"check_reward expects a Reward, got {type(reward).__name__}; build one with pointwise(name, fn)."
        )
    trajectory = random_trajectory(example, seed=0)
    case = _Case(reward, trajectory, *_checked_init(reward, at(trajectory, 0)))
    run = _compiled(reward)
    output, state = _attempt(reward, "unroll", run.unroll, case.params, case.state, trajectory)
    _check_output(case, output, "unroll")
    _check_state(case, state, "unroll")
    if reward.step is not None:
        _check_steps(case, run, output, state)
    _check_masked(case, run, output, state)
    _check_independence(case, run)
    _check_jit(case, output)
    _check_vmap(case, run)
    _check_gradients(case)


class _Case(NamedTuple):
    reward: Reward
    trajectory: Transition
    params: Params
    state: State


class _Runs(NamedTuple):
    unroll: Callable[..., Any]
    step: Callable[..., Any]
    frozen: Callable[..., Any]
    traces: list[int]


# --- clauses ---------------------------------------------------------------------------------------------------------


def _checked_init(reward: Reward, example: Transition) -> tuple[Params, State]:
    made = _attempt(reward, "init", reward.init, jax.random.key(0), example)
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], State)):
        raise ContractError(f"{reward.name!r}: init must return (params, State), got {type(made).__name__}.")
    params, state = made
    lanes = example.mask.shape[0]
    for leaf in jax.tree.leaves(state.episode):
        if jnp.shape(leaf)[:1] != (lanes,):
            raise ContractError(
                f"{reward.name!r}: the episode state must have leading axis B = {lanes}, got shape {jnp.shape(leaf)}."
            )
    if jax.tree.leaves(state.episode) and _types(state.episode) != _types(state.fresh):
        raise ContractError(
            f"{reward.name!r}: state.fresh must have the structure, shapes and dtypes of state.episode."
        )
    return params, state


def _check_output(case: _Case, output: Any, where: str) -> None:
    name = case.reward.name
    if not isinstance(output, Output) or not output.terms:
        raise ContractError(
            f"{name!r}: {where} must return an Output with at least one term, got {type(output).__name__}."
        )
    incoming = case.trajectory.reward if where == "unroll" else case.trajectory.reward[0]
    mask = case.trajectory.mask if where == "unroll" else case.trajectory.mask[0]
    for what, value in {"the reward": output.reward, **{f"term {k!r}": v for k, v in output.terms.items()}}.items():
        value = jnp.asarray(value)
        if value.shape != incoming.shape or value.dtype != jnp.asarray(incoming).dtype:
            expected = f"{jnp.asarray(incoming).dtype}{list(incoming.shape)}"
            raise ContractError(
                f"{name!r}: {what} of {where} must be {expected}, got {value.dtype}{list(value.shape)}."
            )
        if not np.isfinite(value).all():
            raise ContractError(f"{name!r}: {what} of {where} must be finite for finite inputs, got NaN or infinity.")
        if np.any(np.asarray(value)[~mask]):
            raise ContractError(f"{name!r}: masked rows must earn 0, but {what} of {where} is not 0 there.")
    _same(name, "the terms must sum to the reward", sum(output.terms.values()), output.reward, scale=output.terms)
    if "environment" in output.terms:
        clause = "the term 'environment' must be the incoming reward"
        _same(name, clause, output.terms["environment"], np.where(mask, incoming, 0))


def _check_state(case: _Case, state: Any, where: str) -> None:
    if not isinstance(state, State) or _types(state) != _types(case.state):
        raise ContractError(
            f"{case.reward.name!r}: {where} must return a State with the structure, shapes and dtypes that init gave."
        )


def _check_steps(case: _Case, run: _Runs, unrolled: Output, final: State) -> None:
    name, outputs, state = case.reward.name, [], case.state
    first, after = _eager(case, "step", at(case.trajectory, 0))
    _check_output(case, first, "step")
    _check_state(case, after, "step")
    for t in range(TIME):
        row = at(case.trajectory, t)
        output, state = run.step(case.params, state, row)
        outputs.append(output)
        _check_restart(name, state, row)
    if len(run.traces) != 1:
        raise ContractError(
            f"{name!r}: step was traced {len(run.traces)} times for one type of input; keep dtypes and weak types."
        )
    stacked = jax.tree.map(lambda *x: np.stack(x), *outputs)
    _same(name, "step and unroll must give the same rewards and terms", stacked, unrolled)
    _same(name, "step and unroll must give the same state", state, final)
    _same(name, "step must give the same with and without jit", first, jax.tree.map(lambda x: x[0], stacked))


def _check_restart(name: str, state: State, row: Transition) -> None:
    ended = row.mask & (row.terminated | row.truncated)
    pick = lambda tree: jax.tree.map(lambda x: np.asarray(x)[ended], tree)  # noqa: E731
    if jax.tree.leaves(state.episode):
        _same(name, "the episode state of ended lanes must be fresh again", pick(state.episode), pick(state.fresh))


def _check_masked(case: _Case, run: _Runs, output: Output, state: State) -> None:
    name, clause = case.reward.name, "masked rows must change nothing, whatever they hold"
    got = run.unroll(case.params, case.state, with_garbage(case.trajectory))
    _same(name, clause, got, (output, state))
    nothing = case.trajectory._replace(mask=np.zeros_like(case.trajectory.mask))
    _, after = run.unroll(case.params, state, nothing)
    _same(name, "a rollout of masked rows must leave the state as it is", after, state)
    if case.reward.step is not None:
        _, after = run.step(case.params, state, at(nothing, 0))
        _same(name, "a step of masked rows must leave the state as it is", after, state)


def _check_independence(case: _Case, run: _Runs) -> None:
    """With ``running`` frozen: rewards depend on their own lane, their own episode, and their own row if POINTWISE."""
    name, trajectory, kind = case.reward.name, case.trajectory, case.reward.kind
    other = random_trajectory(jax.tree.map(lambda x: x[0], trajectory), seed=1)
    unroll = run.frozen if jax.tree.leaves(case.state.running) else run.unroll
    score = lambda t: unroll(case.params, case.state, t)[0]  # noqa: E731
    base = score(trajectory)
    lanes = np.arange(LANES)[None, :] * np.ones((TIME, 1), int)
    got = score(mixed(lanes == 0, other, trajectory))
    _same(name, "lanes must not influence each other", _rows(got, lanes > 0), _rows(base, lanes > 0))
    number = episode_number(trajectory)
    contents = mixed(number == 0, other, trajectory)._replace(
        terminated=trajectory.terminated, truncated=trajectory.truncated, mask=trajectory.mask
    )
    clause = "an episode must not be influenced by the one before it in its lane (ended lanes must restart)"
    _same(name, clause, _rows(score(contents), number > 0), _rows(base, number > 0))
    if kind is Kind.POINTWISE:
        odd = (np.arange(TIME) % 2 == 1)[:, None] * np.ones((1, LANES), bool)
        got = score(mixed(odd, other, trajectory))
        _same(name, "a POINTWISE reward must not depend on other rows", _rows(got, ~odd), _rows(base, ~odd))


def _check_jit(case: _Case, output: Output) -> None:
    if case.reward.step is None:
        plain, _ = _eager(case, "unroll", case.trajectory)
        _same(case.reward.name, "unroll must give the same with and without jit", plain, output)


def _check_vmap(case: _Case, run: _Runs) -> None:
    name, row = case.reward.name, at(case.trajectory, 0)
    shapes = _attempt(case.reward, "init", jax.eval_shape, case.reward.init, jax.random.key(1), row)
    if _types(shapes) != _types((case.params, case.state)):
        raise ContractError(f"{name!r}: init must give the same structure, shapes and dtypes when it is traced.")
    which, rollout = ("unroll", case.trajectory) if case.reward.step is None else ("step", row)
    members = [(case.params, case.state), case.reward.init(jax.random.key(1), row)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *members)
    got = _jit(jax.vmap(getattr(case.reward, which), in_axes=(0, 0, None), axis_size=2))(*stacked, rollout)
    one_by_one = [getattr(run, which)(*member, rollout) for member in members]
    want = jax.tree.map(lambda *x: np.stack(x), *one_by_one)
    _same(name, "vmap over params and state must give the same as one by one", got, want)


def _check_gradients(case: _Case) -> None:
    floats = [leaf for leaf in jax.tree.leaves(case.params) if jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating)]
    if not floats:
        return

    def total(params: Params) -> Any:
        return case.reward.unroll(params, case.state, with_garbage(case.trajectory))[0].reward.sum()

    gradients = _jit(jax.grad(total, allow_int=True))(case.params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.isfinite(leaf).all():
            where = f"params{jax.tree_util.keystr(path)}"
            raise ContractError(f"{case.reward.name!r}: gradients must be finite, got NaN or infinity in {where}.")


# --- running and comparing -------------------------------------------------------------------------------------------


def _compiled(reward: Reward) -> _Runs:
    traces: list[int] = []

    def step(params: Params, state: State, transition: Transition) -> Any:
        traces.append(1)
        return reward.step(params, state, transition) if reward.step is not None else None

    return _Runs(_jit(reward.unroll), _jit(step), _jit(freeze_running(reward).unroll), traces)


def _jit(fn: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(fn, compiler_options=FAST_COMPILE)


def _attempt(reward: Reward, what: str, fn: Callable[..., Any], *args: Any) -> Any:
    try:
        return fn(*args)
    except Exception as error:
        raise ContractError(
            f"{reward.name!r}: {what} must run, also under jit, got {type(error).__name__}: {error}"
        ) from error


def _eager(case: _Case, which: str, transition: Transition) -> Any:
    """Run without jit and see that params, state and transition are as before."""
    given = (case.params, case.state, transition)
    before = jax.tree.map(lambda x: np.array(_plain(x)), given)
    result = _attempt(case.reward, which, getattr(case.reward, which), *given)
    if jax.tree.structure(before) != jax.tree.structure(given):
        raise ContractError(
            f"{case.reward.name!r}: {which} must not modify its inputs, but it changed their structure."
        )
    _same(case.reward.name, f"{which} must not modify its inputs", given, before)
    return result


def _rows(output: Output, rows: np.ndarray) -> Output:
    return jax.tree.map(lambda x: np.asarray(x)[rows], output)


def _types(tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    arrays = [leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf) for leaf in leaves]
    return structure, [(leaf.shape, leaf.dtype) for leaf in arrays]


def _plain(x: Any) -> np.ndarray:
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    return np.asarray(x)


def _same(name: str, clause: str, got: Any, want: Any, *, scale: Any = ()) -> None:
    """Raise unless two trees of arrays are equal; floats up to a tolerance relative to the largest of them."""
    if jax.tree.structure(got) != jax.tree.structure(want):
        raise ContractError(f"{name!r}: {clause}, but the structures differ.")
    pairs = [(_plain(a), _plain(b)) for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)]
    floats = [x for x in [b for _, b in pairs] + [_plain(s) for s in jax.tree.leaves(scale)] if x.dtype.kind == "f"]
    size = max([float(np.abs(x[np.isfinite(x)]).max(initial=0.0)) for x in floats], default=0.0)
    for a, b in pairs:
        close = (
            np.isclose(a, b, rtol=TOLERANCE, atol=TOLERANCE * size, equal_nan=True) if b.dtype.kind == "f" else a == b
        )
        if not np.all(close):
            gap = np.max(np.abs(np.where(close, 0.0, a.astype(float) - b.astype(float))))
            raise ContractError(f"{name!r}: {clause}, but they differ by up to {gap:.3g}.")
