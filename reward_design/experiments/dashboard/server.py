"""The server of the board: this machine alone, reading alone, by tornado."""

import asyncio
import ipaddress
import os
import secrets
import socket
import threading
import webbrowser
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from reward_design._optional import require
from reward_design.experiments.dashboard import panels
from reward_design.experiments.dashboard.reading import Reader, Tree


class Board:
    """A local web page over a folder of results; use it as a context manager.

    It listens on a loopback address alone, under a path with a random word, answers nothing but GET, and refuses
    requests that name another host, so that no other user of the machine and no web site can read along. It never
    writes to the folder, and serves pictures, clips and pages of it, nothing else.

    Args:
        folder: that any command of this package wrote to, or one above such folders.
        port: 0 for any that is free.
        address: of the loopback interface.
        open_browser: whether to show the page at once.

    Attributes:
        url: where the page is.

    Raises:
        ValueError: if there is no such folder, or for an address that other machines can reach.
        OSError: if the port is taken.
        ImportError: without the extra ``board``.

    Example:
        >>> import tempfile, urllib.request
        >>> from reward_design.experiments import Board
        >>> with Board(tempfile.mkdtemp()) as page:
        ...     print(page.url.split(":")[1], urllib.request.urlopen(page.url).status)
        //127.0.0.1 200
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        port: int = 0,
        address: str = "127.0.0.1",
        open_browser: bool = False,
    ) -> None:
        _check_address(address)
        require("tornado", "board", "boards")
        self.reader, self.word, self._open = Reader(folder), secrets.token_urlsafe(12), open_browser
        self._socket = _socket(port, address)
        self.port = self._socket.getsockname()[1]
        self.host = f"[{address}]" if ":" in address else address
        self.base = f"/{self.word}/"
        self.url = f"http://{self.host}:{self.port}{self.base}"
        self.hosts = frozenset(f"{name}:{self.port}" for name in (self.host, "localhost"))
        self._drawer = ThreadPoolExecutor(1, "board drawing")  # one at a time: matplotlib has global settings
        self._drawn: OrderedDict[Any, str] = OrderedDict()
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="board", daemon=True)

    def __enter__(self) -> "Board":
        self._thread.start()
        self._started.wait()
        if self._open:
            webbrowser.open(self.url)
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._drawer.shutdown()

    def wait(self) -> None:
        """Wait until the server ends: for ever, or until Ctrl-C."""
        while self._thread.is_alive():
            self._thread.join(0.5)

    async def tree(self) -> Tree:
        """The folder as it is now."""
        return await self._loop.run_in_executor(self._drawer, self.reader.look)

    async def state(self, path: str) -> dict[str, Any]:
        """What is on the page of a folder now."""
        return await self._loop.run_in_executor(self._drawer, self._state, path)

    async def panel(self, path: str, name: str, metric: str) -> str | None:
        """The content of a part of a page, None if there is no such part."""
        return await self._loop.run_in_executor(self._drawer, self._panel, path, name, metric)

    def _state(self, path: str) -> dict[str, Any]:
        tree = self.reader.look()
        listed = panels.panels(tree, path)
        shown = [{"id": p.id, "title": p.title, "note": p.note, "version": p.version} for p in listed]
        return {"title": panels.title(tree, path), "panels": shown, "line": panels.line(tree, path)}

    def _panel(self, path: str, name: str, metric: str) -> str | None:
        found = next((p for p in panels.panels(self.reader.look(), path) if p.id == name), None)
        if found is None:
            return None
        key = (path, name, found.version, metric)
        if key not in self._drawn:
            try:
                self._drawn[key] = str(found.render(metric))
            except Exception as error:  # records of another program or version: the other parts are still shown
                return panels.failed_to_draw(error)
            while len(self._drawn) > 500:
                self._drawn.popitem(last=False)
        self._drawn.move_to_end(key)
        return self._drawn[key]

    async def _serve(self) -> None:
        from tornado.httpserver import HTTPServer

        from reward_design.experiments.dashboard.handlers import application

        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = HTTPServer(application(self), max_body_size=1000, max_header_size=16_384)
        server.add_sockets([self._socket])
        self._started.set()
        await self._stop.wait()
        server.stop()
        await server.close_all_connections()


def board(
    folder: str | os.PathLike[str] = "results",
    port: int = 0,
    *,
    open_browser: bool = True,
    address: str = "127.0.0.1",
) -> Board:
    """Show a folder of results in the browser, while experiments write to it; returns at once.

    Args:
        folder: as for :class:`Board`.
        port: 0 for any that is free.
        open_browser: whether to show the page at once.
        address: of the loopback interface.

    Returns:
        The running :class:`Board`: ``url`` is its address, ``close()`` ends it, and so does the end of the program.

    Raises:
        ValueError: as :class:`Board` does.
    """
    return Board(folder, port=port, address=address, open_browser=open_browser).__enter__()


def _check_address(address: str) -> None:
    try:
        inside = ipaddress.ip_address(address).is_loopback
    except ValueError:
        inside = False
    if not inside:
        raise ValueError(
            f"expected a loopback address such as 127.0.0.1, got {address!r}: the board shows files to whoever reaches "
            "it; from another machine use a tunnel, ssh -L 8000:127.0.0.1:PORT."
        )


def _socket(port: int, address: str) -> socket.socket:
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be in [0, 65535], got {port}; 0 takes any that is free.")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        made = socket.create_server((address, port), family=family, backlog=128)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(f"port {port} of {address} cannot be used ({reason}); give another --port, or 0.") from error
    made.setblocking(False)
    return made
