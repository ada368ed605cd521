"""Strict settings for all tests: JAX never promotes ranks silently, hypothesis tries few examples, always the same."""

from pathlib import Path

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("few", max_examples=20, deadline=None, derandomize=True)
hypothesis.settings.load_profile("few")


@pytest.fixture(autouse=True)
def compilation(request):
    """Most tests compile much and compute little, so they compile without optimisation; slow ones as users do."""
    jax.config.update("jax_disable_most_optimizations", request.node.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True, scope="module")
def programs():
    """Compiled programs hold memory maps, of which a process has 65,530 on Linux: let them go before they run out."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 20_000:
        jax.clear_caches()


@pytest.fixture
def float64():
    """Double precision within one test."""
    with jax.enable_x64(True):
        yield
