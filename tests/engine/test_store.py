import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest

from suite.common.errors import UserError
from suite.common.files import write_atomically
from suite.engine.store import RunSpec, open_run, status
from suite.engine.workload import Workload


def spec(**config):
    return RunSpec("stage", {"seed": 0, **config}, code="c1", title="a run")


def test_equal_specs_share_a_directory_and_what_is_not_hashed_does_not_matter(tmp_path):
    a = spec(beta=0.1)
    assert a.directory(tmp_path) == replace(
        a, where={"device": "cuda"}, title="other", work=Workload(drawn=9), function="a:b"
    ).directory(tmp_path)
    assert spec(beta=0.1).key == a.key
    others = [spec(beta=0.2), replace(a, code="c2"), replace(a, stage="other"), replace(a, inputs={"x": spec()})]
    assert len({s.key for s in [a, *others]}) == 5


def test_a_changed_input_changes_the_key():
    a, b = (RunSpec("stage", {}, {"in": spec(x=x)}) for x in (1, 2))
    assert a.key != b.key


def test_status_tells_cached_resumable_changed_and_new(tmp_path):
    s = spec()
    assert status(tmp_path, s) == "to run"
    with open_run(tmp_path, s) as run:
        run.save_checkpoint(3, {})
    assert status(tmp_path, s) == "resumes"
    with open_run(tmp_path, s) as run:
        run.finish()
    assert status(tmp_path, s) == "cached"
    edited = replace(s, code="c2")
    assert status(tmp_path, edited) == "code changed"
    downstream = RunSpec("next", {}, {"in": s}), RunSpec("next", {}, {"in": edited})
    with open_run(tmp_path, downstream[0]) as run:
        run.finish()
    assert status(tmp_path, downstream[1]) == "code changed"


def test_a_finished_run_says_what_it_cost_and_what_made_it(tmp_path):
    with open_run(tmp_path, spec()) as run:
        run.costs["tokens_trained"] = 12
        run.finish()
    facts = json.loads((run.directory / "DONE").read_text())
    assert facts["tokens_trained"] == 12
    assert facts.keys() >= {"seconds", "worker_peak_memory_mib", "created_at", "git_sha", "packages", "machine"}
    assert not (run.directory / "checkpoint.pt").exists()


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path):
    with open_run(tmp_path, spec()) as run:
        for step in range(1, 6):
            run.log(step, {"loss": 1.0 / step})
            if step == 3:
                run.save_checkpoint(step, {"x": 1})
        with (run.directory / "metrics.jsonl").open("a") as file:
            file.write('{"step": 6, "lo')  # torn by a kill
    with open_run(tmp_path, spec()) as run:
        assert run.load_checkpoint()["step"] == 3
        run.log(4, {"loss": 0.25})
        run.finish()
    rows = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]


def test_a_run_held_by_a_live_process_is_refused_with_its_pid_and_free_after_its_death(tmp_path):
    program = textwrap.dedent(
        f"""
        import time
        from pathlib import Path
        from suite.engine.store import RunSpec, open_run
        with open_run(Path({str(tmp_path)!r}), RunSpec("stage", {{"seed": 0}}, code="c1")):
            print("held", flush=True)
            time.sleep(60)
        """
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"held by the live process {holder.pid}"), open_run(tmp_path, spec()):
            pass
    finally:
        holder.kill()
        holder.wait()
    with open_run(tmp_path, spec()) as run:
        assert not run.done


def test_a_spec_edited_by_hand_is_refused(tmp_path):
    with open_run(tmp_path, spec()) as run:
        pass
    path = run.directory / "spec.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(UserError, match=r"spec\.json: does not match"), open_run(tmp_path, spec()):
        pass


def test_an_interrupted_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, lambda p: p.write_text("old"))

    def fail(p):
        p.write_text("half")
        raise UserError("no")

    with pytest.raises(UserError):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_snapshots_can_be_written_twice(tmp_path):
    class Policy:
        def save(self, directory):
            directory.mkdir()
            (directory / "weights").write_text("w")

    with open_run(tmp_path, spec()) as run:
        for _ in range(2):
            run.snapshot(Policy(), 7)
    assert [p.name for p in (run.directory / "snapshots").iterdir()] == ["step-000007"]


def test_a_full_disk_is_an_oserror_even_where_torch_hides_it(tmp_path):
    import errno

    def fill(path):
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(tmp_path / "file", fill)
    assert caught.value.errno == errno.ENOSPC


def test_a_file_never_takes_the_place_of_a_folder(tmp_path):
    precious = tmp_path / "data.parquet" / "part=1" / "rows.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("precious")
    with pytest.raises(UserError, match=r"data\.parquet is a folder"):
        write_atomically(tmp_path / "data.parquet", lambda path: path.write_text("ten verdicts"))
    assert precious.read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["data.parquet"]  # nothing half-written is left


def test_a_folder_takes_the_place_of_a_folder(tmp_path):
    def save(word):
        def write(path):
            path.mkdir()
            (path / "weights").write_text(word)

        return write

    for word in ("old", "new"):
        write_atomically(tmp_path / "model", save(word))
    assert (tmp_path / "model" / "weights").read_text() == "new"
