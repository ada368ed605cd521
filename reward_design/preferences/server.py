"""The page on which a person compares clips: a small server for this machine alone, by the standard library."""

import json
import secrets
import sys
import threading
import webbrowser
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from reward_design.preferences.answers import Given
from reward_design.preferences.clips import animation
from reward_design.preferences.person import Questionnaire

FILES = {"": "index.html", "page.js": "page.js", "page.css": "page.css"}
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css"}
POLICY = "default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self'; connect-src 'self'"
MAX_BODY = 16_000
"""Bytes of an answer."""


class PreferencePage:
    """A local web page with two clips side by side; use it as a context manager.

    It listens on the loopback address alone, under a path with a random word, and refuses requests that name another
    host or come from another page, so that no other user of the machine and no web site can answer.

    Args:
        questionnaire: what is asked.
        port: 0 for any that is free.
        title: the question, in words.
        fps: of the clips.
        open_browser: whether to show the page at once.
        words: whether to ask for words about each clip as well; nobody has to give any.

    Attributes:
        url: where the page is.

    Example:
        >>> from reward_design.envs import task
        >>> from reward_design.preferences import PreferencePage, Questionnaire, record_clips
        >>> clips = record_clips(task("four_rooms").make(render_mode="rgb_array"), num_clips=3, length=4)
        >>> with PreferencePage(Questionnaire(clips, num_questions=3)) as page:
        ...     print(page.url.split(":")[1])  # page.wait() returns the answers when all are given
        //127.0.0.1
    """

    def __init__(
        self,
        questionnaire: Questionnaire,
        *,
        port: int = 0,
        title: str = "Which is better?",
        fps: float | int = 12.0,
        open_browser: bool = False,
        words: bool = False,
    ) -> None:
        self.questionnaire, self.title, self.fps, self.words = questionnaire, title, fps, words
        self.word = secrets.token_urlsafe(12)
        self._server = _Server(("127.0.0.1", port), self)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/{self.word}/"
        self._thread = threading.Thread(target=self._server.serve_forever, name="preference page", daemon=True)
        self._open, self.clip = open_browser, lru_cache(maxsize=64)(self._clip)

    def __enter__(self) -> "PreferencePage":
        self._thread.start()
        if self._open:
            webbrowser.open(self.url)
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait(self, timeout: float | int | None = None) -> list[Given]:
        """Wait until all questions are answered, or for ``timeout`` seconds; the answers so far."""
        self.questionnaire.done.wait(timeout)
        return list(self.questionnaire.given)

    def status(self) -> dict[str, Any]:
        """What the page shows now."""
        question = self.questionnaire.question()
        pair = {} if question is None else question._asdict()
        total = len(self.questionnaire.questions)
        head = {"title": self.title, "words": self.words, "answered": len(self.questionnaire.given), "total": total}
        return {**head, **pair}

    def _clip(self, index: int) -> bytes:
        return animation(self.questionnaire.clips[index].frames, fps=self.fps)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], page: PreferencePage) -> None:
        self.page = page
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silent about a browser that hung up; everything else is shown."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.0"  # a connection per request: none outlives the server
    server_version, sys_version = "reward-design", ""

    def do_GET(self) -> None:
        """The page, its parts, the present question, a clip."""
        path = self._path()
        if path is None:
            return
        if path in FILES:
            file = Path(__file__).parent / "page" / FILES[path]
            self._send(file.read_bytes(), TYPES[file.suffix])
        elif path == "question":
            self._send_status()
        elif path.startswith("clips/"):
            self._send_clip(path.removeprefix("clips/"))
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """An answer ``{"number": 3, "answer": "first"}``, or ``{"answer": "back"}``; the reply is the next question.

        ``{"words": ["about the first", "about the second"]}`` may come with an answer.
        """
        path = self._path()
        if path is None:
            return
        size = self.headers.get("Content-Length", "")
        json_only = self.headers.get_content_type() == "application/json"  # which no form of another page can send
        if path != "answer" or not json_only or not size.isdigit() or int(size) > MAX_BODY:
            self._refuse(HTTPStatus.BAD_REQUEST)
            return
        questionnaire = self.server.page.questionnaire
        body = self.rfile.read(int(size))
        try:
            said = json.loads(body)
            if said["answer"] == "back":
                questionnaire.take_back()
            else:
                words = said.get("words", ("", "")) if self.server.page.words else ("", "")
                questionnaire.give(said["number"], said["answer"], words)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        except OSError as error:
            explained = f"The answer was not kept, because its file could not be written ({error}); give it again."
            self._send(explained.encode(), "text/plain; charset=utf-8", HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        self._send_status()

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def _path(self) -> str | None:
        """The path behind the word; None after a refusal."""
        page = self.server.page
        hosts = {f"{name}:{page.port}" for name in ("127.0.0.1", "localhost")}
        origin = self.headers.get("Origin")
        own = self.headers.get("Host") in hosts and (origin is None or origin.removeprefix("http://") in hosts)
        word, _, rest = self.path.partition("?")[0].removeprefix("/").partition("/")
        if own and secrets.compare_digest(word.encode(), page.word.encode()):
            return rest
        self._refuse(HTTPStatus.FORBIDDEN)
        return None

    def _refuse(self, status: HTTPStatus) -> None:
        size = self.headers.get("Content-Length", "")
        if size.isdigit():  # a body left unread would reset the connection before the reply is read
            self.rfile.read(min(int(size), 64 * MAX_BODY))
        self.send_error(status)

    def _send_status(self) -> None:
        self._send(json.dumps(self.server.page.status()).encode(), "application/json")

    def _send_clip(self, name: str) -> None:
        number = name.removesuffix(".gif")
        if not number.isdigit() or int(number) >= len(self.server.page.questionnaire.clips):
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self._send(self.server.page.clip(int(number)), "image/gif")

    def _send(self, body: bytes, content_type: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        headers = {"Content-Type": content_type, "Content-Length": str(len(body)), "Cache-Control": "no-store"}
        headers |= {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
