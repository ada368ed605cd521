"""Seeds that every generator of random numbers takes."""

LARGEST = 2**32 - 1
"""What NumPy's and JAX's generators have in common."""


def check_seed(seed: int) -> None:
    """Refuse a seed that a generator would not take.

    Raises:
        ValueError: with the range.

    Example:
        >>> from reward_design._seeds import check_seed
        >>> check_seed(-1)
        Traceback (most recent call last):
        ValueError: seed must be a whole number from 0 to 4294967295, got -1.
    """
    if not 0 <= seed <= LARGEST or seed != int(seed):
        raise ValueError(f"seed must be a whole number from 0 to {LARGEST}, got {seed}.")
