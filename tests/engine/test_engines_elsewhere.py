"""Jobs of submitit and tasks of Ray make a plan: a worker or a node that is lost is one more beginning of what it held."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import psutil
import pytest
from waiting_stages import log, of, settle, wait_for

from suite.common.errors import UserError
from suite.common.processes import is_there
from suite.engine.engines import Means
from suite.engine.making import closure
from suite.engine.sweep import run_sweep

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path, monkeypatch):
    return settle(tmp_path, monkeypatch)


@pytest.fixture
def submitit():
    return pytest.importorskip("submitit")


@pytest.fixture
def ray(monkeypatch):
    """Ray, that tells nobody of it and finds no cluster but that of the test."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    found = pytest.importorskip("ray")
    yield found
    found.shutdown()


@pytest.fixture
def cluster(ray):
    """A head that makes nothing, and two nodes of a core each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [made.add_node(num_cpus=1) for _ in range(2)]
    made.wait_for_nodes()
    yield made, nodes
    ray.shutdown()
    made.shutdown()


def plan_that_waits():
    first = [of(f"first {k}", waits=True) for k in range(2)]
    return [of("last", *(of(f"second {k}", *first) for k in range(4)))]


def made_in_a_thread(root, targets, engine):
    found = []
    thread = threading.Thread(target=lambda: found.extend(run_sweep(root, targets, engine=engine)))
    thread.start()
    return found, thread


def check_all_made(root, targets, found, killed):
    """Each once, but for one that a killed worker held."""
    assert {o.spec.title: o.status for o in found} == {spec.title: "done" for spec in closure(targets)}
    begun = Counter(title for title, _, _ in log(root))
    assert begun.pop(killed) == 2
    assert set(begun.values()) == {1}
    for spec in closure(targets):
        assert (spec.directory(root) / "result").read_text() == spec.title


def test_a_job_that_is_killed_is_submitted_again(place, submitit, capfd):
    root, targets = place / "runs", plan_that_waits()
    engine = Means(workers=2, engine="submitit").open(root, targets)
    found, thread = made_in_a_thread(root, targets, engine)
    wait_for(lambda: len(log(root)) == 2)
    killed, _, pid = log(root)[0]
    os.kill(int(pid), signal.SIGKILL)
    wait_for(lambda: len(log(root)) == 3)  # its replacement, since the other one still waits
    (root / "go").write_text("")
    thread.join(timeout=240)
    assert not thread.is_alive()
    check_all_made(root, targets, found, killed)
    assert "1 of 2 jobs ended too early and start again: the worker was ended by SIGKILL" in capfd.readouterr().err


def test_a_job_that_is_taken_away_gives_back_what_it_holds(place, submitit):
    root, targets = place / "runs", [of("waits", waits=True)]
    engine = Means(workers=1, engine="submitit").open(root, targets)
    found, thread = made_in_a_thread(root, targets, engine)
    wait_for(lambda: len(log(root)) == 1)
    psutil.Process(int(log(root)[0][2])).parent().send_signal(signal.SIGUSR2)  # as SLURM does before it preempts
    wait_for(lambda: len(log(root)) == 2)
    (lease,) = targets[0].directory(root).glob("lease-*.json")
    assert json.loads(lease.read_text())["deaths"] == 0
    (root / "go").write_text("")
    thread.join(timeout=240)
    assert [o.status for o in found] == ["done"]


def test_jobs_that_only_end_are_one_line(place, submitit, monkeypatch):
    root, targets = place / "runs", [of("one")]
    engine = Means(workers=1, engine="submitit").open(root, targets)
    engine.plan.write_text("{")
    with pytest.raises(UserError, match=r"5 jobs in a row ended and nothing was made; the last one: .*is no plan.*\.err\)$"):
        list(run_sweep(root, targets, engine=engine))


def test_submitit_in_this_process(place, submitit):
    from suite.engine.submitted_workers import SubmittedWorkers

    root, targets = place / "runs", [of("last", of("first"))]
    engine = SubmittedWorkers(root, targets, 1, cluster="debug")
    assert [o.status for o in run_sweep(root, targets, engine=engine)] == ["done", "done"]


def test_what_sbatch_reads_of_the_user_is_left_to_it(place, submitit, monkeypatch):
    from suite.engine import submitted_workers

    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    monkeypatch.setenv("SBATCH_PARTITION", "gpu")
    with submitted_workers._as_no_job():
        assert "SLURM_JOB_ID" not in os.environ
        assert (os.environ["SLURM_CONF"], os.environ["SBATCH_PARTITION"]) == ("/etc/slurm.conf", "gpu")
    assert os.environ["SLURM_JOB_ID"] == "7"


def test_a_node_that_is_killed_is_one_more_beginning(place, cluster, ray, monkeypatch):
    made, nodes = cluster
    ray.init(address=made.address, log_to_driver=False)
    root, targets = place / "runs", plan_that_waits()
    engine = Means(engine="ray").open(root, targets)
    found, thread = made_in_a_thread(root, targets, engine)
    wait_for(lambda: len(log(root)) == 2)
    of_node = {psutil.Process(int(pid)).ppid(): (title, int(pid)) for title, _, pid in log(root)}
    killed, pid = of_node[raylet_of(nodes[0])]
    made.remove_node(nodes[0], allow_graceful=False)
    wait_for(lambda: not is_there(pid))
    (root / "go").write_text("")
    thread.join(timeout=240)
    assert not thread.is_alive()
    check_all_made(root, targets, found, killed)


def raylet_of(node):
    from ray._private.ray_constants import PROCESS_TYPE_RAYLET

    return node.all_processes[PROCESS_TYPE_RAYLET][0].process.pid


def test_what_a_task_says_is_what_a_run_says(place, ray):
    root = place / "runs"
    targets = [of("after", of("bad", function="fail")), of("good")]
    outcomes = {o.spec.title: o for o in run_sweep(root, targets, engine=Means(engine="ray").open(root, targets))}
    assert {title: o.status for title, o in outcomes.items()} == {"bad": "failed", "after": "skipped", "good": "done"}
    assert outcomes["bad"].error.startswith("ValueError: seven (log: ")
    refused = [of("refused", function="refuse")]
    with pytest.raises(UserError, match=r"^row 7: no prompt$"):
        list(run_sweep(root, refused, engine=Means(engine="ray").open(root, refused)))
    assert not ray.is_initialized()


def test_tasks_that_are_stopped_give_back_what_they_hold(place, ray):
    root, (spec,) = place / "runs", [of("waits", waits=True)]
    engine = Means(engine="ray").open(root, [spec])

    def stopped():
        with engine:
            engine.submit(spec)
            wait_for(lambda: log(root))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    (lease,) = spec.directory(root).glob("lease-*.json")
    assert lease.read_text() == '{"given_back": true}'


def test_the_smoke_grid_of_which_a_node_is_killed_has_the_records_of_one_that_was_not(tmp_path, cluster):
    made, nodes = cluster
    runs = tmp_path / "ray" / "runs"
    with subprocess.Popen(
        grid(tmp_path / "ray", "--engine", "ray"), env=os.environ | {"RAY_ADDRESS": made.address},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as driver:  # fmt: skip
        try:
            wait_for(lambda: len(list((runs / "policy").glob("*/DONE"))) == 1 or driver.poll() is not None)
            deadline, raylet = time.monotonic() + 240, raylet_of(nodes[0])
            while not (lost := held_by(runs, raylet)):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            made.remove_node(nodes[0], allow_graceful=False)
            said, _ = driver.communicate(timeout=600)
        finally:
            driver.kill()
    assert driver.returncode == 0, said[-3000:]
    assert {path.parent for path in runs.glob("*/*/lease-*.json") if path.name != "lease-1.json"} == lost
    done = subprocess.run(grid(tmp_path / "here", "--workers", "2"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    ours, theirs = (pd.read_parquet(tmp_path / name / "out" / "measurements.parquet") for name in ("ray", "here"))
    pd.testing.assert_frame_equal(ours, theirs)


def held_by(runs, raylet):
    """The trainings that processes of a node make just now."""
    found = set()
    for path in runs.glob("policy/*/lease-*.json"):
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            holder = json.loads(path.read_text())
            if "pid" in holder and psutil.Process(holder["pid"]).ppid() == raylet:
                found.add(path.parent)
    return found


def grid(folder, *how):
    script = ROOT / "experiments" / "run_imdb_frontier.py"
    where = ["--runs", str(folder / "runs"), "--out", str(folder / "out")]
    return [sys.executable, str(script), "--profile", "smoke", "--methods", "preferred_ft,dpo", *where, *how]
