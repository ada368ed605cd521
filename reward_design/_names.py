"""Names that a user may mistype."""

import difflib
from collections.abc import Iterable


def suggestion(name: str, options: Iterable[str], *, cutoff: float = 0.4) -> str:
    """End of the sentence ``"unknown task 'x'"``: the nearest name, or a full stop.

    Args:
        name: what was given.
        options: what there is.
        cutoff: likeness in [0, 1] that an option needs; 0 always offers one.

    Returns:
        ``"; did you mean 'y'?"`` or ``"."``.

    Example:
        >>> from reward_design._names import suggestion
        >>> suggestion("four_room", ["chain", "four_rooms"]), suggestion("zzz", ["chain"])
        ("; did you mean 'four_rooms'?", '.')
    """
    close = difflib.get_close_matches(str(name), list(options), n=1, cutoff=cutoff)
    return f"; did you mean {close[0]!r}?" if close else "."
