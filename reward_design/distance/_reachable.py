"""States that no policy reaches: what happens there has no consequence, and the theory assumes that there are none."""

import warnings
from typing import Any

import numpy as np
from jaxtyping import Bool

from reward_design.envs import exact


def reachable(transition: exact.Numbers, initial: exact.Numbers) -> Bool[np.ndarray, " S"]:
    """Which states some policy reaches from the start distribution.

    Args:
        transition: ``[S, A, S]``.
        initial: ``[S]`` start distribution.

    Returns:
        ``[S]`` bool.

    Raises:
        ValueError: for arrays that are no distributions or do not fit.

    Example:
        >>> import numpy as np
        >>> reachable(np.eye(3)[:, None], [1.0, 0.0, 0.0]).tolist()
        [True, False, False]
    """
    exact.check_transition(transition)
    exact.check_table("initial", initial, np.shape(transition)[-1:], "[S]")
    exact.check_distribution("initial", initial)
    edges = np.asarray((np.asarray(transition) > 0).any(axis=-2))
    found = np.asarray(initial) > 0
    while True:
        more = found | edges[found].any(axis=0)
        if (more == found).all():
            return found
        found = more


def warn_of_unreachable(transition: Any, initial: Any) -> None:
    """Warn of unreachable states, by index. MDPs with batch axes and traced ones pass."""
    if exact.is_traced(transition, initial) or np.ndim(transition) != 3:
        return
    lost = np.flatnonzero(~reachable(transition, initial))
    if lost.size:
        warnings.warn(unreachable_text(lost), UserWarning, stacklevel=4)


def unreachable_text(states: Any) -> str:
    """One sentence about the states of these indices."""
    named = ", ".join(map(str, states[:10])) + (f" and {len(states) - 10} more" if len(states) > 10 else "")
    return (
        f"no policy reaches the states {named} from the start distribution: a difference there counts in the distance "
        "and in no return, so a distance above 0 need not mean another order of policies (0 still means the same "
        "order); leave these states out of the arrays, or start there with positive probability."
    )
