"""The process that serves a local model; run as a script, it imports nothing of this package.

It is a process of its own so that it can be ended in the middle of its work: what a model has begun to read it reads
to the end, which on a machine that has other things to do takes minutes. It ends with the process that started it,
however that one ends: its standard input is then closed.
"""

import importlib
import json
import os
import sys
from typing import Any


def main(path: str, port: int, context: int, threads: int) -> None:
    """Load, say where it listens (or why not) in a line of JSON, serve until standard input is closed."""
    xllamacpp: Any = importlib.import_module("xllamacpp")
    settings = xllamacpp.CommonParams()
    settings.model.path = path
    settings.port, settings.n_ctx, settings.n_parallel = port, context, 1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    settings.ui, settings.verbosity = False, -1
    try:
        server = xllamacpp.Server(settings)
    except (RuntimeError, ValueError) as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return
    print(json.dumps({"address": server.listening_address}), flush=True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads on
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
