"""Files of policies: what the agent acts from, who the agent is, its settings and the task, as one checkpoint."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

import reward_design
from reward_design.agents import base, checkpoint, recipes
from reward_design.agents.host import described
from reward_design.agents.policies import Policy, abstract_state, acted_from
from reward_design.envs.base import FunctionalEnv, Task
from reward_design.envs.gymnasium_view import GymnasiumView
from reward_design.envs.host import HostEnv, SpacesOnly

FORMAT = 1
"""Of the files; a later one is refused."""


def save_policy(
    path: str | os.PathLike[str],
    trained: Any,
    config: Any,
    env: Any,
    *,
    agent: base.Agent | None = None,
    overwrite: bool = False,
) -> None:
    """Write the policy of a trained state, with what is needed to act again: a small folder.

    Args:
        path: folder to make.
        trained: what ``train`` or ``train_host`` returned, or its ``state`` (one run, no axis of seeds).
        config: the agent's settings.
        env: what it was trained on: a task, functional or vector environment.
        agent: the agent; by default the one that ``config`` belongs to.
        overwrite: replace a policy that lies there.

    Raises:
        ValueError: for the states of several seeds, a state that does not belong to ``config`` and ``env``, or a path
            that is in use.
        TypeError: for what is no result or state, and settings of another agent.

    Example:
        >>> import jax, tempfile, reward_design as rd
        >>> from reward_design.agents import load_policy, ppo, save_policy
        >>> from reward_design.envs import task
        >>> config, folder = ppo.Config(total_timesteps=256, num_envs=4), tempfile.mkdtemp() + "/walker"
        >>> result = ppo.train(config, task("chain"), rd.environment_reward(), jax.random.key(0))
        >>> save_policy(folder, result, config, task("chain"))
        >>> load_policy(folder).env is task("chain").env
        True
    """
    path, agent = Path(path), owner(config) if agent is None else agent
    if not isinstance(config, agent.Config):
        raise TypeError(
            f"agent {agent.name!r} expects its own Config, got {type(config).__name__} of {type(config).__module__}."
        )
    state = trained.state if isinstance(trained, base.TrainResult) else trained
    if not hasattr(state, "num_updates"):
        raise TypeError(
            f"save_policy expects what train or train_host returned, or its state, got {type(trained).__name__}."
        )
    if np.ndim(state.num_updates):
        raise ValueError(
            f"save_policy expects the state of one run, got {len(state.num_updates)} seeds; choose one with "
            "jax.tree.map(lambda x: x[i], state)."
        )
    if path.exists() and not (overwrite and is_policy(path)):
        raise ValueError(
            f"{path} exists already; choose another path{', or overwrite=True' if is_policy(path) else ''}."
        )
    env, _ = _known(env)
    _check_belongs(state, agent, config, env)
    part = {name: getattr(state, name) for name in acted_from(agent, config, env)}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        checkpoint.save(temporary, part, step=int(state.num_updates), identity=_identity(agent, config, env))
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_policy(
    path: str | os.PathLike[str], env: Any = None, *, config: Any = None, deterministic: bool = True, seed: int = 0
) -> Policy:
    """Read a policy that :func:`save_policy` wrote.

    Args:
        path: its folder.
        env: where it is to act: a task or functional environment (the one it was trained on), or any gymnasium
            environment with the same spaces. By default the task, made again from its name and settings.
        config: the agent's settings, only needed if one of them is a function.
        deterministic: the mode of the policy instead of samples.
        seed: of the samples.

    Returns:
        The :class:`Policy`; its actions are those of the trained state, bit for bit.

    Raises:
        ValueError: if there is no policy, it is damaged, was written by a newer version, or does not belong to this
            task, these spaces or these settings.
    """
    if not is_policy(path):
        if (Path(path) / "checkpoints").is_dir():
            raise ValueError(f"{path} is the folder of a run; read it with reward_design.experiments.load_run.")
        raise _no_policy(Path(path))
    saved = checkpoint.newest(path)
    if saved is None:  # its folder has no number
        raise _no_policy(Path(path))
    identity = saved.identity
    if identity.get("format", 0) > FORMAT:
        raise ValueError(
            f"the policy in {path} has format {identity['format']}, and this version of reward-design reads up to "
            f"{FORMAT}; it was written by version {identity['version']}."
        )
    agent = named(identity["agent"])
    config = recipes.settings_from(agent, identity["config"], config, path)
    built, task = recipes.remade(identity, path) if env is None else _known(env)
    _check_fits(identity, built, path, by_name=not isinstance(env, (gymnasium.Env, gymnasium.vector.VectorEnv)))
    state = restored(path, agent, config, built)
    return Policy(agent, config, built, state, task=task, deterministic=deterministic, seed=seed)


def is_policy(path: str | os.PathLike[str]) -> bool:
    """Whether a folder looks like what :func:`save_policy` wrote."""
    return any(Path(path).glob(f"*/{checkpoint.SUMS}"))


# --- what runs of `train` use as well -------------------------------------------------------------------------------


def restored(
    folder: str | os.PathLike[str],
    agent: base.Agent,
    config: Any,
    env: FunctionalEnv | HostEnv,
    *,
    seed_axis: bool = False,
) -> Any:
    """What an agent acts from, read from a checkpoint; all other fields of its state are None.

    Args:
        folder: where the checkpoints live.
        agent: the agent.
        config: its settings.
        env: where it acts.
        seed_axis: the checkpoint has a leading axis of seeds; the first is taken.

    Raises:
        ValueError: if it does not fit the environment and the settings.
    """
    like = abstract_state(agent, config, env)
    wanted = {name: getattr(like, name) for name in acted_from(agent, config, env)}
    if seed_axis:
        wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), wanted)
    found = jax.tree.map(lambda x: jnp.asarray(x[0] if seed_axis else x), checkpoint.restore_part(folder, wanted))
    return like._replace(**{name: found.get(name) for name in like._fields})


def owner(config: Any) -> base.Agent:
    """The agent that settings belong to.

    Raises:
        TypeError: if there is none.
    """
    from reward_design.agents import AGENTS

    for name, module in AGENTS.items():
        if type(config).__module__ == module:
            return named(name)
    raise TypeError(
        f"{type(config).__name__} is not the Config of an agent of the package ({', '.join(AGENTS)}); give agent=."
    )


def named(name: str) -> base.Agent:
    """The agent of this name; the same as :func:`reward_design.agents.agent`."""
    from reward_design.agents import agent

    return agent(name)


# --- parts ----------------------------------------------------------------------------------------------------------


def _identity(agent: base.Agent, config: Any, env: FunctionalEnv | HostEnv) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": reward_design.__version__,
        "task": env.name,
        "settings": recipes.recipe_of(env),
        "agent": agent.name,
        "config": recipes.plain_settings(config),
        "observation_space": str(env.observation_space),
        "action_space": str(env.action_space),
    }


def _check_belongs(state: Any, agent: base.Agent, config: Any, env: FunctionalEnv | HostEnv) -> None:
    """Refuse a state that this agent does not make for these settings and this environment."""
    like = abstract_state(agent, config, env)
    who = f"the state does not belong to agent {agent.name!r} with this config on {env.name!r}"
    for name in acted_from(agent, config, env):
        if getattr(state, name, None) is None:
            raise ValueError(f"{who}: it has no {name}; give the config and env that it was trained with.")
        wanted, found = _described(getattr(like, name)), _described(getattr(state, name))
        differs = [where for where in {**wanted, **found} if wanted.get(where) != found.get(where)]
        if differs:
            where = differs[0]
            raise ValueError(
                f"{who}: {name}{where} is {found.get(where, 'missing')}, and they need {wanted.get(where, 'nothing')}; "
                "give the config and env that it was trained with."
            )


def _described(tree: Any) -> dict[str, str]:
    """Dtype and shape of every leaf, by its place."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.eval_shape(lambda same: same, tree))
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def _no_policy(path: Path) -> ValueError:
    """What is wrong with a folder that has no policy, or a damaged one."""
    parts = sorted(part.parent for part in path.glob("*/identity") if not part.parent.name.startswith("."))
    if not parts:
        return ValueError(f"there is no policy in {path}; write one with reward_design.agents.save_policy.")
    if not (parts[-1] / checkpoint.SUMS).is_file():
        what = f"{parts[-1].name}/{checkpoint.SUMS}, which has the hashes of its files, is missing"
    else:
        what = f"its folder {parts[-1].name!r} should be named by a number, the updates done"
    return ValueError(f"the policy in {path} is damaged: {what}; copy it once more, or save it again.")


def _check_fits(identity: Mapping[str, Any], env: FunctionalEnv | HostEnv, path: Any, *, by_name: bool) -> None:
    for name in ("observation_space", "action_space"):
        if str(getattr(env, name)) != identity[name]:
            raise ValueError(
                f"the policy in {path} acts on the {name.replace('_', ' ')} {identity[name]}, and {env.name!r} has "
                f"{getattr(env, name)}."
            )
    if by_name and env.name != identity["task"]:
        raise ValueError(
            f"the policy in {path} was trained on {identity['task']!r}, got {env.name!r}; to use it there all the "
            "same, give a gymnasium environment: task.make()."
        )
    settings = recipes.recipe_of(env)
    if by_name and None not in (settings, identity["settings"]) and settings != identity["settings"]:
        raise ValueError(
            f"the policy in {path} was trained on {identity['task']!r} with {identity['settings'] or 'no settings'}, "
            f"got {settings or 'no settings'}; to use it there all the same, give a gymnasium environment: task.make()."
        )


def _known(env: Any) -> tuple[FunctionalEnv | HostEnv, Task | None]:
    """What an agent needs to know of a task or environment of any kind, and the task if it is one."""
    if isinstance(env, Task):
        return env.env, env
    if isinstance(env, (FunctionalEnv, HostEnv)):
        return env, None
    if isinstance(env, gymnasium.Env) and isinstance(env.unwrapped, GymnasiumView):
        return env.unwrapped.env, None
    if isinstance(env, gymnasium.vector.VectorEnv):
        return described(env), None
    if isinstance(env, gymnasium.Env):
        return SpacesOnly(env), None
    raise TypeError(f"expected a task or an environment, got {type(env).__name__}.")
