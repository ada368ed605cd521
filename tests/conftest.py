"""Strict settings for all tests: JAX never promotes ranks silently, hypothesis tries few examples, always the same."""

import os
import signal
from pathlib import Path

import hypothesis
import jax
import jaxtyping
import pytest

# Most of the time goes into compilation: XLA's older emitters of fusions compile twice as fast, and splitting a program
# among threads only costs where every core has a process of pytest. XLA reads this when it compiles for the first time;
# the processes that tests start inherit it.
FAST_COMPILATION = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")  # a stack for each operation, which nobody reads here
jax.config.update("jax_traceback_in_locations_limit", int(os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"]))
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("NPROC", "1")  # threads of XLA; by default one for every core, in each of the processes
if FAST_COMPILATION not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FAST_COMPILATION}".strip()

# A job in the background of a script starts with Ctrl-C ignored, and so would every program that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ("tests.browsers",)

jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("few", max_examples=20, deadline=None, derandomize=True)
hypothesis.settings.load_profile("few")


@pytest.fixture(autouse=True)
def compilation(request, monkeypatch):
    """Most tests compile much and compute little, so they compile without optimisation; slow ones as users do."""
    slow = request.node.get_closest_marker("slow") is not None
    jax.config.update("jax_disable_most_optimizations", not slow)
    if not slow:
        monkeypatch.setattr("reward_design.agents.seeds.QUICK", None)


@pytest.fixture(autouse=True, scope="module")
def programs():
    """Compiled programs hold memory maps, of which a process has 65,530 on Linux: let them go before they run out."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 20_000:
        jax.clear_caches()


@pytest.fixture
def untyped():
    """As outside of the tests, where nothing checks the types of arguments and has its own words for a wrong one."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def float64():
    """Double precision within one test."""
    with jax.enable_x64(True):
        yield
