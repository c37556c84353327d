"""A server that speaks OpenAI's chat protocol on loopback, and misbehaves on demand."""

import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TRANSIENT = ("429", "429 later", "500", "503", "hang", "reset", "truncated", "empty choices", "not json", "drip")
REFUSALS = {
    "401": (401, {"message": "Incorrect API key provided: {key}", "code": "invalid_api_key"}),
    "403": (403, {"message": "Project of {key} does not have access", "code": "model_not_found"}),
    "404": (404, {"message": "The model does not exist", "code": "model_not_found"}),
    "quota": (429, {"message": "You exceeded your current quota", "code": "insufficient_quota"}),
    "context": (400, {"message": "maximum context length is 8192 tokens", "code": "context_length_exceeded"}),
    "parameter": (400, {"message": "'temperature' is not supported", "code": "unsupported_value", "param": "temperature"}),
    "400": (400, {"message": "bad request of {key}", "code": "strange"}),
}


class FaultServer:
    """Serves from `with FaultServer(...) as server` on, at `server.url`.

    Args:
        choose: Request text → the reply's text.
        fault: (number of the request from 0, its text) → what goes wrong, "" for nothing. A function makes of the good reply
            (a dictionary) what is sent instead of it: (status, body, headers), the body as text or bytes.
        hang_s: How long a hanging reply takes.

    Attributes:
        sent: Requests so far; `last`: the last one.
        asked: Request text → times it was asked.
        answered: Request text → times it got a whole, usable reply.
        times: When each request arrived, monotonic seconds.
    """

    def __init__(
        self,
        choose: Callable[[str], str] = lambda text: "It is better.\nPreferred: A",
        fault: Callable[[int, str], Any] = lambda number, text: "",
        hang_s: float = 1.0,
    ) -> None:
        self.choose, self.fault, self.hang_s = choose, fault, hang_s
        self.sent, self.times, self.last = 0, [], {}
        self.asked, self.answered, self.faults = Counter(), Counter(), Counter()
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def do_POST(self) -> None:
                server._serve(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *_: object) -> None:  # clients that were killed
                pass

        self._http = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        request = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        text, key = request["messages"][0]["content"], handler.headers["authorization"].removeprefix("Bearer ")
        with self._lock:
            number, self.sent, self.last = self.sent, self.sent + 1, request
            self.times.append(time.monotonic())
            self.asked[text] += 1
            fault = self.fault(number, text)
            self.faults[fault] += 1
        if fault in REFUSALS:
            status, error = REFUSALS[fault]
            error = {**error, "message": error["message"].format(key=key)}
            return self._send(handler, status, json.dumps({"error": error}))
        if fault in ("429", "429 later", "429 long", "500", "503"):
            headers = {"429 later": {"retry-after": "0.3"}, "429 long": {"retry-after": "500"}}.get(fault, {})
            return self._send(handler, int(fault[:3]), json.dumps({"error": {"message": f"busy, {key}"}}), headers)
        if fault == "hang":
            time.sleep(self.hang_s)
            handler.close_connection = True
            return None
        if fault == "reset":
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
            handler.close_connection = True
            return None
        message = {"role": "assistant", "content": self.choose(text).replace("{key}", key)}
        if fault == "refusal":
            message = {"role": "assistant", "content": None, "refusal": "I will not judge this."}
        choice = {"index": 0, "finish_reason": "length" if fault == "cut" else "stop", "message": message}
        reply = {
            "id": "x", "object": "chat.completion", "created": 0, "model": f"{request['model']}-2026-01-01",
            "choices": [] if fault == "empty choices" else [choice], "system_fingerprint": "fp_1",
            "usage": {"prompt_tokens": len(text) // 4, "completion_tokens": 12, "total_tokens": len(text) // 4 + 12},
        }  # fmt: skip
        if callable(fault):
            return self._send(handler, *fault(reply))
        body = json.dumps(reply)
        if fault == "truncated":
            body = body[: len(body) // 2]
        if fault == "not json":
            body = "<html>gateway</html>"
        if fault == "drip":
            return self._drip(handler, body)
        if fault in ("", "refusal", "cut"):
            with self._lock:
                self.answered[text] += 1
        return self._send(handler, 200, body)

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, status: int, body: str | bytes, headers: dict[str, str] | None = None) -> None:
        data = body.encode() if isinstance(body, str) else body
        handler.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(data)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    def _drip(self, handler: BaseHTTPRequestHandler, body: str) -> None:
        """A byte now and then: no single read times out, the reply as a whole does."""
        handler.send_response(200)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(body.encode())))
        handler.end_headers()
        handler.close_connection = True
        until = time.monotonic() + 2 * self.hang_s
        for byte in body.encode():
            if time.monotonic() > until:
                return
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(self.hang_s / 20)
