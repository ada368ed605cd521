"""Environments in worker processes over shared memory, that survive workers which die, raise or hang."""

import multiprocessing
import time
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, ClassVar

import cloudpickle
import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import DTypeLike

from reward_design._cores import num_cores
from reward_design.envs.host import NotCopied, lane_seeds, map_space
from reward_design.envs.process_memory import Memory, Path
from reward_design.envs.process_worker import STEP, Worker, end_all
from reward_design.envs.vector_checks import check_open, lane_actions


class ProcessVectorEnv(NotCopied, gymnasium.vector.VectorEnv):
    """Steps environments in worker processes, several in each, in autoreset mode ``SAME_STEP``.

    Actions, observations, rewards and info entries travel through shared memory, and one byte each way tells a worker
    to step and the parent that it has. Every array returned is fresh. ``infos["final_obs"]`` has the structure of the
    observations, with leading axis ``B``; it is valid where an episode ended (``infos["_final_obs"]``). The entries
    named by ``info`` are in ``infos`` of every step, and belong to the step, not to the reset that followed it (so
    ``infos["final_info"]``, there for readers of gymnasium's own vector environments, says the same).

    **Faults.** A worker that dies, raises or does not answer within ``timeout`` is killed and replaced. Its lanes give
    a row with terminated False, truncated True, reward 0, the last good observation as ``final_obs``, infos 0 (or
    ``fault_info``) and ``infos["worker_fault"]`` True, and start new episodes; the others do not notice. The number is
    in :attr:`num_faults`, the cause in a ``RuntimeWarning``. What cannot be mended is an error: environments that
    cannot be made or reset, an observation that does not fit its space, and ``max_faults`` faults of a worker without
    a good step between them.

    Args:
        make: makes one environment; sent to the workers by cloudpickle.
        num_envs: number of lanes ``B``.
        num_workers: processes; by default one per core, but no more than lanes.
        timeout: seconds that a worker may take for one step or reset of its lanes.
        start_timeout: seconds that a worker may take to start and make its environments.
        max_faults: faults in a row of one worker that end it all.
        seed: of the first ``reset``, if that is given none; lane ``i`` gets ``seed + i``.
        info: shape and dtype of the info entries to hand on; every step of an environment must have them.
        fault_info: value of info entries in the row of a fault, where 0 will not do.
        observation_space: of one environment; by default, that of one made (and closed) in this process.
        action_space: likewise.
        context: ``"forkserver"`` (workers start at once, from a server process that never ran JAX; the default where
            it exists) or ``"spawn"``; ``"fork"`` is refused because JAX has threads.
        host_env: what made this, for agents.

    Raises:
        ValueError: for impossible numbers.
        TypeError: for a space that is not made of numbers.
        RuntimeError: if a worker cannot make its environments, with the message of what went wrong.

    Example (in a script, below ``if __name__ == "__main__":``)::

        envs = ProcessVectorEnv(lambda: gymnasium.make("CartPole-v1"), 8, num_workers=2)
        obs, infos = envs.reset(seed=0)
        obs, rewards, terminated, truncated, infos = envs.step(envs.action_space.sample())
        envs.close()
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
    closed = True  # until there is something to close

    def __init__(
        self,
        make: Callable[[], gymnasium.Env],
        num_envs: int,
        *,
        num_workers: int | None = None,
        timeout: float = 60.0,
        start_timeout: float = 120.0,
        max_faults: int = 3,
        seed: int | None = None,
        info: Mapping[str, tuple[tuple[int, ...], DTypeLike]] | None = None,
        fault_info: Mapping[str, Any] | None = None,
        observation_space: spaces.Space | None = None,
        action_space: spaces.Space | None = None,
        context: str | None = None,
        host_env: Any = None,
    ) -> None:
        num_workers = min(num_envs, num_cores()) if num_workers is None else num_workers
        context = context or ("forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn")
        _check(num_envs, num_workers, timeout, start_timeout, max_faults, context)
        if observation_space is None or action_space is None:
            observation_space, action_space = _spaces_of(make)
        self.num_envs, self.host_env, self.render_mode = num_envs, host_env, None
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.num_faults, self.timeout, self.max_faults, self._seed = 0, timeout, max_faults, seed
        self._info_names, self._fault_info = tuple(info or {}), dict(fault_info or {})
        processes: Any = multiprocessing.get_context(context)
        if context == "forkserver":
            processes.set_forkserver_preload(["reward_design.envs.process_worker"])
        memory = Memory(observation_space, action_space, info or {}, num_envs)
        buffer = processes.RawArray("b", memory.num_bytes)
        self._views: dict[Path, np.ndarray] = memory.views(buffer)
        self._seeds, self._slot = np.random.SeedSequence(seed), 0
        self._ready = self._started = False
        self.closed, self._workers = False, []
        self._finalizer = weakref.finalize(self, end_all, self._workers)  # also at the end of the program
        shared = (cloudpickle.dumps(make), buffer, memory)
        try:
            for lanes in np.array_split(np.arange(num_envs), num_workers):
                self._workers.append(Worker(processes, lanes, shared, start_timeout))
            for worker in self._workers:
                self._must(worker, worker.answer(start_timeout), "make its environments")
        except BaseException:
            self.close()
            raise

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every lane. A seed s gives lane i the seed s + i.

        Raises:
            ClosedEnvironmentError: after ``close``.
            RuntimeError: if environments cannot be reset: at once the first time, later after one replacement.
        """
        check_open(self)
        if seed is None and self._seed is not None:
            seed = self._seed
        seeds = lane_seeds(seed, self.num_envs)
        if isinstance(seed, Integral):
            self._seeds = np.random.SeedSequence(int(seed))
        self._seed = None
        self._settle()
        self._slot, first, self._started = 0, not self._started, True
        for worker in self._workers:
            worker.send_reset(seeds, options, 0)
        causes = {worker: cause for worker in self._workers if (cause := worker.answer(self.timeout)) is not None}
        if first:
            for worker, cause in causes.items():
                self._must(worker, cause, "reset its environments")
        self._replace(causes, seeds, options)
        self._ready = True
        self._warn(causes)
        return self._obs(), self._infos()

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every lane, and reset those that ended.

        Raises:
            ClosedEnvironmentError: after ``close``.
            ValueError, TypeError: for actions that do not fit the lanes.
            RuntimeError: after ``max_faults`` faults of one worker in a row, if a replacement cannot start, or for an
                observation that does not fit its space.
        """
        check_open(self)
        if not self._ready:
            raise gymnasium.error.ResetNeeded("the environments must be reset before the first step; call reset().")
        self._send_actions(actions)
        self._ready = False  # a Ctrl-C between here and the end leaves answers outstanding
        before, self._slot = self._slot, 1 - self._slot
        for worker in self._workers:
            worker.send(STEP[self._slot])
        deadline = time.monotonic() + self.timeout
        causes = {w: cause for w in self._workers if (cause := w.answer(deadline - time.monotonic())) is not None}
        fault = np.zeros(self.num_envs, bool)
        for worker in causes:
            fault[worker.lanes] = True
        result = self._result(fault, before)
        if causes:
            self._replace(causes, self._fresh_seeds())
            result = (self._obs(), *result[1:])
        for worker in self._workers:
            worker.faults_in_row *= worker in causes
        self._ready = True
        self._warn(causes)
        return result

    def close_extras(self, **kwargs: Any) -> None:
        """End the workers and free the shared memory; ``close()`` may be called any number of times."""
        self._ready = False
        self._finalizer()
        self._views.clear()

    @property
    def pids(self) -> list[int]:
        """Process id of every worker."""
        return [worker.process.pid for worker in self._workers if worker.process is not None]

    # --- shared memory ------------------------------------------------------------------------------------------------

    def _send_actions(self, actions: Any) -> None:
        for path, view in self._views.items():
            if path[0] == "action":
                view[...] = lane_actions(actions, path[1:], view.shape, view.dtype)

    def _obs(self) -> Any:
        return self._tree("obs", lambda view: view[self._slot].copy())

    def _tree(self, kind: str, fn: Callable[[np.ndarray], np.ndarray]) -> Any:
        """``fn`` of the views of one kind, in the structure of the observations."""
        views = iter([view for path, view in self._views.items() if path[0] == kind])
        return map_space(lambda _: fn(next(views)), self.single_observation_space)

    def _infos(self) -> dict[str, Any]:
        return {name: self._views["info", name][self._slot].copy() for name in self._info_names}

    def _result(self, fault: np.ndarray, before: int) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """The step as the workers left it; in lanes with a fault, an episode cut off at the observation before."""
        reward, terminated, truncated = (self._views[name,].copy() for name in ("reward", "terminated", "truncated"))
        reward[fault], terminated[fault], truncated[fault] = 0.0, False, True
        obs, infos = self._obs(), self._infos()
        for name in self._info_names if fault.any() else ():
            infos[name][fault] = self._fault_info.get(name, 0)
        ended = terminated | truncated
        if ended.any():
            told = {**infos, "worker_fault": fault}
            infos["final_info"] = {**told, **{f"_{name}": ended.copy() for name in told}}
            finals = iter([view for path, view in self._views.items() if path[0] == "final_obs"])

            def final(view: np.ndarray) -> np.ndarray:
                successor = view[self._slot].copy()
                successor[ended], successor[fault] = next(finals)[ended], view[before][fault]
                return successor

            infos |= {"final_obs": self._tree("obs", final), "_final_obs": ended, "_final_info": ended}
        infos["worker_fault"] = fault
        return obs, reward, terminated, truncated, infos

    # --- faults -------------------------------------------------------------------------------------------------------

    def _replace(self, causes: Mapping["Worker", str], seeds: Sequence[int | None], options: Any = None) -> None:
        """New processes for workers with faults, with new episodes in their lanes."""
        self.num_faults += len(causes)
        for worker, cause in causes.items():
            self._must(worker, cause if worker.misfit else None, "go on")
            worker.faults_in_row += 1
            if worker.faults_in_row >= self.max_faults:
                self.close()
                raise RuntimeError(
                    f"{worker} failed {self.max_faults} times in a row; the last time it {cause}. Mend the "
                    f"environment, or allow more with max_faults.\n{worker.trace}".rstrip()
                )
            worker.start()
        for worker in causes:
            self._must(worker, worker.answer(worker.start_timeout), "make its environments again")
            worker.send_reset(seeds, options, self._slot)
            self._must(worker, worker.answer(self.timeout), "reset its environments again")

    def _fresh_seeds(self) -> list[int]:
        return self._seeds.spawn(1)[0].generate_state(self.num_envs).tolist()

    def _settle(self) -> None:
        """Before a reset: wait for answers that an interrupted call left outstanding, restart workers that ended."""
        self._ready, gone = False, []
        for worker in self._workers:
            if (worker.waiting and worker.answer(self.timeout) is not None) or not worker.alive:
                worker.end(0.0)
                worker.start()
                gone.append(worker)
        for worker in gone:
            self._must(worker, worker.answer(worker.start_timeout), "make its environments again")
        self.num_faults += len(gone)
        for worker in gone:
            warnings.warn(f"{worker} ended between steps; it was replaced.", RuntimeWarning, stacklevel=3)

    def _warn(self, causes: Mapping["Worker", str]) -> None:
        for worker, cause in causes.items():
            warnings.warn(f"{worker} {cause}; it was replaced and its episodes dropped.", RuntimeWarning, stacklevel=3)

    def _must(self, worker: "Worker", cause: str | None, what: str) -> None:
        if cause is not None:
            self.close()
            raise RuntimeError(f"{worker} could not {what}: it {cause}.\n{worker.trace}".rstrip())


def _check(
    num_envs: int, num_workers: int, timeout: float, start_timeout: float, max_faults: int, context: str
) -> None:
    if num_envs < 1:
        raise ValueError(f"num_envs must be at least 1, got {num_envs}.")
    if not 1 <= num_workers <= num_envs:
        raise ValueError(f"num_workers must be between 1 and num_envs = {num_envs}, got {num_workers}.")
    if not (timeout > 0 and start_timeout > 0):
        raise ValueError(f"timeout and start_timeout must be positive, got {timeout} and {start_timeout}.")
    if max_faults < 1:
        raise ValueError(f"max_faults must be at least 1, got {max_faults}.")
    if context not in ("spawn", "forkserver"):
        raise ValueError(f"context must be 'spawn' or 'forkserver', got {context!r}; JAX does not survive a fork.")


def _spaces_of(make: Callable[[], gymnasium.Env]) -> tuple[spaces.Space, spaces.Space]:
    probe = make()
    found = probe.observation_space, probe.action_space
    probe.close()
    return found
