"""A Hub on this machine: what lies in a folder, served over loopback as huggingface.co serves it, to whoever has HF_ENDPOINT.

So the loaders of a study are tried with the names, layouts and requests that they will have, without a network.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

MOVED = {"gpt2-large": "openai-community/gpt2-large"}
"""Names of old, which the Hub answers with a redirection."""
CACHES = (
    "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE", "HF_DATASETS_CACHE", "HF_MODULES_CACHE",
    "HF_ASSETS_CACHE", "HF_XET_CACHE",
)  # fmt: skip
"""Variables that name a place where something fetched is kept, each of which may be set where the program is started."""
NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
API = re.compile(r"/api/(models|datasets)/(.+?)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?")
FILE = re.compile(r"/(datasets/)?(.+?)/resolve/([^/]+)/(.+)")


@contextmanager
def stand_in_hub(folder: Path) -> Iterator[str]:
    """Serve `<folder>/models/OWNER/NAME` and `<folder>/datasets/OWNER/NAME` until the block ends; gives the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Hub, folder))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def to_reach(address: str, home: Path) -> dict[str, str]:
    """Environment of processes for which that Hub is the Hub, and which keep what they fetch in `home`."""
    return {
        **{name: str(home / name.lower()) for name in CACHES}, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0",
        "HF_DATASETS_OFFLINE": "0", "HF_TOKEN": "",
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
    }  # fmt: skip


class _Hub(BaseHTTPRequestHandler):
    """Listings of a repository and its files; everything is of one revision, whose name is the hash of what it holds."""

    def __init__(self, folder: Path, *args: Any) -> None:
        self.folder = folder
        super().__init__(*args)

    def log_message(self, *_: Any) -> None:
        """Nothing: who asks says what went wrong."""

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_POST(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        url = urlsplit(self.path)
        path, asked = unquote(url.path), parse_qs(url.query)
        if name := next((old for old in MOVED if re.search(rf"/{old}(/|$)", path) and MOVED[old] not in path), None):
            self._send(HTTPStatus.TEMPORARY_REDIRECT, {"Location": self.path.replace(name, MOVED[name], 1)})
        elif found := FILE.fullmatch(path):
            self._send_file("datasets" if found[1] else "models", found[2], found[4], body)
        elif found := API.fullmatch(path):
            kind, name, what, _, place = found.groups()
            self._send_listing(kind, name, what or "revision", place or "", asked, body)
        else:
            self._send(HTTPStatus.NOT_FOUND, {})

    def _send_listing(self, kind: str, name: str, what: str, place: str, asked: dict[str, list[str]], body: bool) -> None:
        root = self.folder / kind / name
        if not NAME.fullmatch(name) or not root.is_dir():
            return self._send(HTTPStatus.NOT_FOUND, {"X-Error-Code": "RepoNotFound"})
        found: Any
        if what == "revision":
            files = [{"rfilename": path} for path in _files(root)]
            found = {"id": name, "sha": _revision(root), "siblings": files, "private": False, "gated": False, "tags": []}
        elif what == "tree":
            everything = "true" in (word.lower() for word in asked.get("recursive", ()))
            inside = [path for path in (*_files(root), *_folders(root)) if not place or path.startswith(f"{place}/")]
            depth = place.count("/") + (2 if place else 1)
            found = [_entry(root, path) for path in inside if everything or path.count("/") < depth]
            if not found:
                return self._send(HTTPStatus.NOT_FOUND, {"X-Error-Code": "EntryNotFound"})
        else:
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            known = {*_files(root), *_folders(root)}
            found = [_entry(root, path) for path in _paths(sent, self.headers.get("Content-Type", "")) if path in known]
        content = json.dumps(found).encode()
        self._send(HTTPStatus.OK, {"Content-Type": "application/json"}, content, body=body)

    def _send_file(self, kind: str, name: str, path: str, body: bool) -> None:
        root = self.folder / kind / name
        known = bool(NAME.fullmatch(name)) and root.is_dir()
        if not known or path not in _files(root):
            code = "EntryNotFound" if known else "RepoNotFound"
            return self._send(HTTPStatus.NOT_FOUND, {"X-Error-Code": code})
        content = (root / path).read_bytes()
        headers = {"ETag": f'"{_hash(root / path)}"', "X-Repo-Commit": _revision(root), "Accept-Ranges": "bytes"}
        if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(part[1]), min(int(part[2] or len(content) - 1), len(content) - 1)
            if first > last:
                return self._send(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, {"Content-Range": f"bytes */{len(content)}"})
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            return self._send(HTTPStatus.PARTIAL_CONTENT, headers, content[first : last + 1], body=body)
        self._send(HTTPStatus.OK, headers, content, body=body)

    def _send(self, status: HTTPStatus, headers: dict[str, str], content: bytes = b"", *, body: bool = True) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


def _paths(sent: bytes, kind: str) -> list[str]:
    """The paths that a request for some entries names, as a form or as JSON."""
    if "json" in kind:
        named = json.loads(sent)["paths"]
        return [named] if isinstance(named, str) else list(named)
    return parse_qs(sent.decode()).get("paths", [])


def _entry(root: Path, path: str) -> dict[str, Any]:
    file = (root / path).is_file()
    size = (root / path).stat().st_size if file else 0
    oid = _hash(root / path) if file else hashlib.sha1(path.encode()).hexdigest()
    return {"type": "file" if file else "directory", "path": path, "size": size, "oid": oid}


def _files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def _folders(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_dir())


@cache
def _hash(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


@cache
def _revision(root: Path) -> str:
    return hashlib.sha1("".join(f"{path} {_hash(root / path)}\n" for path in _files(root)).encode()).hexdigest()
