"""`suite watch`: the page of a study while its runs are made, in a browser on this machine."""

import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import Annotated, Any

import tyro

from suite.cli.ranges import Place, Port
from suite.common.errors import UserError, first_line, shown
from suite.common.machine import quiet_libraries
from suite.report.html.live import Sweep
from suite.report.html.write import as_json, page_of
from suite.study.plan_file import STUDIES, enter_studies

HOST = "127.0.0.1"
OURS = re.compile(r"(127\.0\.0\.1|localhost)(:\d+)?")
"""What a browser of this machine calls it, also through a tunnel that has another port at its end."""


def watch(study: Annotated[Place, tyro.conf.Positional] = Path("results/runs"), port: Port = 8765) -> int:
    """Serve the page of a study while its runs are made, to browsers of this machine alone. It only reads; Ctrl-C ends it.

    Examples:
      suite watch                                                    the study that was started last, http://127.0.0.1:8765
      suite watch results/runs/studies/1f0c59b0a1b2c3d4.json         the one that its script has named
      ssh -L 8765:127.0.0.1:8765 cluster                             then, on your machine, the page of one at work over there

    Args:
        study: File that a script writes into the folder studies of its runs and names when it starts; or the folder of runs.
        port: Of the address.
    """
    quiet_libraries()
    root, plans, about = enter_studies(_file_of(study))
    with server(Sweep(root, plans, about), port) as serving:
        print(f"{', '.join(plans)}: http://{HOST}:{serving.server_port}/ (Ctrl-C ends it)", flush=True)
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


def _file_of(study: Path) -> Path:
    """The file of a study; of a folder of runs that of the study that was started last."""
    if not study.is_dir():
        return study
    folder = study if study.name == STUDIES else study / STUDIES
    found = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(f"{study}: no study was started with these runs; give the folder of --runs, or the file that it names")
    return found[-1]


def server(sweep: Sweep, port: int) -> ThreadingHTTPServer:
    """Answers `/` with the page and `/data.json` with what it draws, to whoever names it as this machine. Raises UserError if
    the port is taken.
    """
    lock = Lock()
    live = files("suite.report.html").joinpath("js/live.js").read_text(encoding="utf-8")

    class Answer(BaseHTTPRequestHandler):
        server_version = "suite"
        sys_version = ""

        def do_GET(self) -> None:
            """The two addresses there are."""
            if not OURS.fullmatch(self.headers.get("Host", "")):
                self._say(403, "text/plain", "this page is for browsers of this machine")
            elif self.path not in ("/", "/data.json"):
                self._say(404, "text/plain", "there is nothing else here")
            else:
                try:
                    with lock:
                        found = sweep.look()
                except Exception as error:  # files of runs at work: the next look will tell
                    self._say(503, "text/plain", f"not now: {first_line(error)}")
                    return
                if self.path == "/":
                    self._say(200, "text/html", page_of(found["studies"], more_script=live, connect="'self'"))
                else:
                    self._say(200, "application/json", as_json(found))

        def _say(self, status: int, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            for name, value in (("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body))),
                                ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"),
                                ("X-Frame-Options", "DENY"), ("Cross-Origin-Resource-Policy", "same-origin")):  # fmt: skip
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the terminal is the user's."""

    try:
        return ThreadingHTTPServer((HOST, port), Answer)
    except OSError as error:
        raise UserError(f"--port {port}: {shown(str(error.strerror))}; give another one") from error
