"""What the board answers, and what it refuses."""

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from reward_design._optional import require
from reward_design.experiments.dashboard import pictures, reading
from reward_design.experiments.dashboard.panels import environment, title

if TYPE_CHECKING:
    from reward_design.experiments.dashboard.server import Board

web: Any = require("tornado.web", "board", "boards")

POLICY = (
    "default-src 'none'; img-src 'self' data:; media-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FILE_POLICY = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Of files of the folder: a page in it runs no script and loads nothing."""
STATIC = Path(__file__).parent / "page"


def application(board: "Board") -> Any:
    """The application of a board."""
    word, shared = board.word, {"board": board}
    return web.Application(
        [
            (rf"/{word}/", _Page, shared),
            (rf"/{word}/view/(.*)", _Page, shared),
            (rf"/{word}/state", _State, shared),
            (rf"/{word}/panel", _Panel, shared),
            (rf"/{word}/static/(board\.(?:js|css))", _Static, shared | {"path": str(STATIC)}),
            (rf"/{word}/files/(.*)", _File, shared | {"path": str(board.reader.root.resolve())}),
        ],
        default_handler_class=_Nothing,
        default_handler_args=shared,
        log_function=lambda handler: None,
    )


class _Guard:
    """Refuses other methods, other hosts and other pages before anything is looked at."""

    board: "Board"
    request: Any

    def prepare(self: Any) -> None:
        """Called before the method of a request."""
        if self.request.method != "GET":
            raise web.HTTPError(405)
        origin = self.request.headers.get("Origin")
        hosts = self.board.hosts
        if self.request.host not in hosts or (origin is not None and origin.removeprefix("http://") not in hosts):
            raise web.HTTPError(403)
        word = self.request.path.removeprefix("/").partition("/")[0]
        if not secrets.compare_digest(word.encode(), self.board.word.encode()):
            raise web.HTTPError(403)

    def set_default_headers(self: Any) -> None:
        """Of every reply."""
        self.set_header("Server", "reward-design")
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")

    def write_error(self: Any, status_code: int, **_: Any) -> None:
        """A short sentence, without anything of the request in it."""
        if status_code == 405:
            self.set_header("Allow", "GET")
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code}: {self._reason}\n")

    def log_exception(self, *_: Any) -> None:
        """Silent about refusals."""


class _Handler(_Guard, web.RequestHandler):
    def initialize(self, board: "Board") -> None:
        self.board = board

    def folder(self, path: str) -> str:
        """The path of a folder below the root, as the tree names it; 404 for one that is not there."""
        clean = path.strip("/")
        root = self.board.reader.root.resolve()
        full = (root / clean).resolve()
        if not full.is_relative_to(root) or not full.is_dir() or ".." in Path(clean).parts:
            raise web.HTTPError(404)
        return clean


class _Page(_Handler):
    async def get(self, path: str = "") -> None:
        path = self.folder(path)
        parts = path.split("/") if path else []
        root = self.board.reader.root
        crumbs = [(root.resolve().name or str(root), "")]
        crumbs += [(name, quote("/".join(parts[: i + 1]))) for i, name in enumerate(parts)]
        tree = await self.board.tree()
        self.set_header("Content-Type", "text/html; charset=utf-8")
        page = environment().get_template("board.html.j2")
        self.finish(
            page.render(
                title=title(tree, path), base=self.board.base, path=path, crumbs=crumbs, metrics=pictures.METRICS
            )
        )


class _State(_Handler):
    async def get(self) -> None:
        self.finish(await self.board.state(self.folder(self.get_query_argument("path", ""))))


class _Panel(_Handler):
    async def get(self) -> None:
        path, name = self.folder(self.get_query_argument("path", "")), self.get_query_argument("id", "")
        content = await self.board.panel(path, name, self.get_query_argument("metric", ""))
        if content is None:
            raise web.HTTPError(404)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(content)


class _Nothing(_Handler):
    def get(self) -> None:
        raise web.HTTPError(404)


class _Static(_Guard, web.StaticFileHandler):
    def initialize(self, board: "Board", **kwargs: Any) -> None:
        self.board = board
        super().initialize(**kwargs)


class _File(_Static):
    """A clip, picture or page of the folder; byte ranges, which players ask for, come with tornado."""

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        full = Path(absolute_path)
        known = reading.CLIPS | reading.PICTURES | reading.PAGES
        if full.suffix.lower() not in known or not full.resolve().is_relative_to(Path(root).resolve()):
            raise web.HTTPError(404)
        if not full.is_file():
            raise web.HTTPError(404)
        return str(full)

    def set_extra_headers(self, path: str) -> None:
        self.set_header("Content-Security-Policy", FILE_POLICY)
        self.set_header("Cache-Control", "no-cache")
