"""The live page: served to this machine alone, and nothing but the page."""

import http.client
import json
import os
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from suite.analysis.records import read_results
from suite.cli import watch as command
from suite.cli.watch import server
from suite.common.errors import UserError
from suite.report.html.data import data_of

STUDY = data_of(read_results(Path(__file__).parents[2] / "results" / "best_of_n_imdb"), "best_of_n_imdb")
DATA = {"version": "1", "progress": {"runs": 3, "done": 1, "now": ["</script><b>"], "failed": []}, "studies": [STUDY]}


class Looked:
    """In place of a sweep."""

    def look(self):
        return DATA


@contextmanager
def served(sweep=None):
    with server(sweep or Looked(), 0) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        try:
            yield serving.server_port
        finally:
            serving.shutdown()
            thread.join()


def ask(port, path="/", method="GET", host=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, headers={"Host": f"127.0.0.1:{port}" if host is None else host})
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), answer.headers


def test_the_page_and_its_data():
    with served() as port:
        status, text, headers = ask(port)
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert "connect-src &#39;self&#39;" in text
        assert "follow();" in text
        status, text, headers = ask(port, "/data.json")
        assert status == 200
        assert json.loads(text) == DATA
        assert "<" not in text
        assert headers["Cache-Control"] == "no-store"
        assert ask(port, host=f"localhost:{port}")[0] == 200
        assert ask(port, host="127.0.0.1:9000")[0] == 200  # through a tunnel of ssh


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1:{port}.evil.example", "127.0.0.1.evil.example:{port}", ""]
)
def test_other_hosts_are_refused(host):
    """A page of elsewhere whose name was made to point here (DNS rebinding) sends its own name."""
    with served() as port:
        for path in ("/", "/data.json"):
            status, text, _ = ask(port, path, host=host.format(port=port))
            assert status == 403
            assert "runs" not in text


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/runs", "/data.json/..", "//etc/passwd", "/%2e%2e/", "/?x", "/data.json?x=1", "/index.html"]
)
def test_there_is_nothing_else(path):
    with served() as port:
        assert ask(port, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_it_only_reads(method):
    with served() as port:
        assert ask(port, method=method)[0] == 501


def test_a_fault_is_an_answer():
    class Broken:
        def look(self):
            raise ValueError("a line that is being written")

    with served(Broken()) as port:
        assert ask(port)[:2] == (503, "not now: a line that is being written")


def test_it_listens_on_this_machine_alone():
    with server(Looked(), 0) as serving:
        assert serving.server_address[0] == "127.0.0.1"
        with pytest.raises(UserError, match=f"--port {serving.server_port}: .*give another"):
            server(Looked(), serving.server_port)


def test_the_study_that_was_started_last_is_found(tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    with pytest.raises(UserError, match="no study was started with these runs"):
        command._file_of(tmp_path)
    for name, when in (("b", 1), ("a", 3), ("c", 2)):
        (folder / f"{name}.json").write_text("{}")
        os.utime(folder / f"{name}.json", (when, when))
    assert command._file_of(tmp_path) == command._file_of(folder) == folder / "a.json"
    assert command._file_of(folder / "c.json") == folder / "c.json"
