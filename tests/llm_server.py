"""An OpenAI-compatible server on the loopback address that plays scripts of faults, over real sockets."""

import gzip
import json
import socket
import struct
import threading
import time
from collections.abc import Iterable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD_JSON = '{"achieved": true, "evidence": "you see here a key"}'
GOOD_TEXT = "A fine answer."


class ScriptedServer:
    """Answers request after request as the script says, and well when the script has ended; a context manager.

    Args:
        script: names of :data:`STEPS`.
        pause: seconds between the bytes of a slow drip.
        contents: what good answers say, in turn; by default what fits the request.

    Attributes:
        url: for ``base_url``.
        requests: bodies that came.
        headers: headers that came.
        times: when they came.
    """

    def __init__(self, script: Iterable[str] = (), *, pause: float = 0.02, contents: Iterable[str] = ()) -> None:
        self.script, self.pause, self.contents = list(script), pause, list(contents)
        assert set(self.script) <= set(STEPS)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.closing, self.lock = threading.Event(), threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> "ScriptedServer":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, body: dict[str, Any], headers: dict[str, str]) -> str:
        """The step of the script for this request."""
        with self.lock:
            self.requests.append(body)
            self.headers.append(headers)
            self.times.append(time.monotonic())
            return self.script.pop(0) if self.script else "good"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], owner: ScriptedServer) -> None:
        self.owner = owner
        super().__init__(address, Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up on these faults."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.close_connection = True
        self.body = body
        STEPS[self.server.owner.take(body, {name.lower(): value for name, value in self.headers.items()})](self)

    def send(self, status: int, body: bytes, *, content_type: str = "application/json", **headers: str) -> None:
        """A whole response."""
        self.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def error(self, status: int, text: str, **headers: str) -> None:
        """An error as OpenAI sends it."""
        self.send(status, json.dumps({"error": {"message": text, "type": "error", "code": None}}).encode(), **headers)

    def answer(self, content: Any, reason: Any = "stop", **message: Any) -> None:
        """A chat completion."""
        self.send(200, completion(content, reason, **message))

    def wait(self, seconds: float) -> bool:
        """Whether the server goes on after that time."""
        return not self.server.owner.closing.wait(seconds)


def completion(content: Any, reason: Any = "stop", **message: Any) -> bytes:
    """The JSON of a chat completion."""
    choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": content, **message}}
    usage = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
    answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    return json.dumps(answer).encode()


def good(handler: Handler) -> None:
    owner, wanted = handler.server.owner, "schema" in json.dumps(handler.body)
    if owner.contents:
        handler.answer(owner.contents[(len(owner.requests) - 1) % len(owner.contents)])
    else:
        handler.answer(GOOD_JSON if wanted else GOOD_TEXT)


def hang(handler: Handler) -> None:
    handler.wait(60)


def drip(handler: Handler, data: bytes) -> None:
    """A byte at a time, for longer than anybody waits, each well within a time limit for reading."""
    for byte in data:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        if not handler.wait(handler.server.owner.pause):
            return


def slow_headers(handler: Handler) -> None:
    drip(handler, b"HTTP/1.1 200 OK\r\nX-Padding: " + b"a" * 50_000)


def slow_body(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    drip(handler, b" " * 50_000)


def slow_error(handler: Handler) -> None:
    handler.send_response(500)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    drip(handler, b" " * 50_000)


def endless(handler: Handler, status: int = 200) -> None:
    """A body without end, as fast as it goes."""
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [{"message": {"content": "')
    while not handler.server.owner.closing.is_set():
        handler.wfile.write(b"a" * 65_536)


def drop(handler: Handler) -> None:
    handler.connection.close()


def reset(handler: Handler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def drop_in_the_middle(handler: Handler) -> None:
    body = completion(GOOD_TEXT)
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


def not_http(handler: Handler) -> None:
    handler.wfile.write(b"\x00\xff nobody speaks HTTP here\r\n\r\n")


def squeezed(handler: Handler) -> None:
    handler.send(200, gzip.compress(b" " * 10_000_000), Content_Encoding="gzip")


def no_schema(handler: Handler) -> None:
    """A server without constrained decoding, for one request; plain ones it serves."""
    if "response_format" in handler.body:
        handler.error(400, "response_format of type 'json_schema' is not supported with this model")
    else:
        handler.answer("Here you are:\n```json\n" + GOOD_JSON + "\n```")


def new_name(handler: Handler) -> None:
    if "max_tokens" in handler.body:
        handler.error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
    else:
        good(handler)


STEPS: dict[str, Any] = {
    "good": good,
    "hang": hang,
    "slow headers": slow_headers,
    "slow body": slow_body,
    "slow error": slow_error,
    "429": lambda h: h.error(429, "slow down"),
    "429 after": lambda h: h.error(429, "slow down", Retry_After="0.2"),
    "429 date": lambda h: h.error(429, "slow down", Retry_After=formatdate(time.time() + 1, usegmt=True)),
    "429 tomorrow": lambda h: h.error(429, "slow down", Retry_After="86400"),
    "429 nonsense": lambda h: h.error(429, "slow down", Retry_After="-nan soon"),
    "429 quota": lambda h: h.error(429, "You exceeded your current quota: insufficient_quota"),
    "500": lambda h: h.error(500, "oops"),
    "503": lambda h: h.send(503, b"<html>busy</html>", content_type="text/html"),
    "endless error": lambda h: endless(h, 500),
    "drop": drop,
    "reset": reset,
    "drop in the middle": drop_in_the_middle,
    "not http": not_http,
    "truncated json": lambda h: h.send(200, completion(GOOD_TEXT)[:-20]),
    "malformed json": lambda h: h.send(200, b"<html>welcome to the hotel</html>", content_type="text/html"),
    "wrong form": lambda h: h.send(200, b'{"choices": []}'),
    "wrong types": lambda h: h.answer([{"type": "text"}], 7),
    "a list": lambda h: h.send(200, b"[1, 2]"),
    "deep json": lambda h: h.send(200, b"[" * 60_000),
    "not utf-8": lambda h: h.send(200, b'{"choices": "\xff\xfe"}'),
    "squeezed": squeezed,
    "lone surrogate": lambda h: h.answer("half a smile \ud83d"),
    "refusal": lambda h: h.answer(None, "stop", refusal="I cannot help with that."),
    "filtered": lambda h: h.answer("", "content_filter"),
    "empty": lambda h: h.answer("  "),
    "null": lambda h: h.answer(None),
    "gigantic": endless,
    "401": lambda h: h.error(401, "Incorrect API key provided"),
    "404": lambda h: h.error(404, "The model does not exist"),
    "413": lambda h: h.error(413, "too large"),
    "cut": lambda h: h.answer('{"achieved": tr', "length"),
    "prose": lambda h: h.answer("I think the key was picked up."),
    "wrong schema": lambda h: h.answer('{"achieved": "perhaps"}'),
    "no schema": no_schema,
    "new name": new_name,
}
"""What can happen to a request."""
