"""Files are whole or not there: under a full disk, a read-only one, a power cut, and beside another process."""

import errno
import os
import resource
import threading

import pytest

from suite.common import files
from suite.common.errors import UserError
from suite.common.files import check_writable, remove, write_atomically


def save_folder(path):
    path.mkdir()
    (path / "weights").write_text("weights")


@pytest.fixture
def steps(monkeypatch):
    """What is done to the disk, in order: ("sync", name), ("rename", name)."""
    done, replace, fsync = [], os.replace, os.fsync

    def note_sync(handle):
        done.append(("sync", os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))))
        fsync(handle)

    def note_replace(old, new):
        replace(old, new)
        done.append(("rename", os.path.basename(new)))

    monkeypatch.setattr(files.os, "fsync", note_sync)
    monkeypatch.setattr(files.os, "replace", note_replace)
    return done


@pytest.mark.parametrize(
    ("write", "synced"), [(lambda p: p.write_text("x"), ".it.PID.tmp"), (save_folder, "weights")], ids=["file", "folder"]
)
def test_the_disk_holds_what_is_written_before_it_gets_its_name_and_the_name_after(tmp_path, steps, write, synced):
    write_atomically(tmp_path / "it", write)
    synced = synced.replace("PID", str(os.getpid()))
    assert steps == [("sync", synced), ("rename", "it"), ("sync", tmp_path.name)]


def test_a_file_system_that_cannot_sync_folders_is_no_fault(tmp_path, monkeypatch):
    def refuse(handle):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(files.os, "fsync", refuse)
    write_atomically(tmp_path / "it", lambda path: path.write_text("x"))
    assert (tmp_path / "it").read_text() == "x"


@pytest.fixture
def small_files():
    """No file can grow beyond 1000 bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def big_parquet(path):
    import pandas as pd

    pd.DataFrame({"x": [os.urandom(10) for _ in range(1000)]}).to_parquet(path)


def big_figure(path):
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([0, 1])
    figure.savefig(path, format="png")


def big_checkpoint(path):
    import torch

    with path.open("wb") as file:
        torch.save({"x": torch.ones(10_000)}, file)


def big_weights(path):
    import torch
    from safetensors.torch import save_file

    path.mkdir()
    save_file({"x": torch.ones(10_000)}, path / "model.safetensors")


@pytest.mark.parametrize("write", [lambda p: p.write_text("x" * 5000), big_parquet, big_figure, big_checkpoint, big_weights])
def test_on_a_full_disk_the_old_file_stays_and_the_error_names_it(tmp_path, small_files, write):
    path = tmp_path / "it"
    path.write_text("old")

    with pytest.raises(OSError, match="too large") as caught:
        write_atomically(path, write)
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["it"]


@pytest.mark.parametrize("code", files.DISK)
@pytest.mark.parametrize("how", ["of python", "in words", "behind another"])
def test_a_fault_of_the_disk_names_the_file_whoever_raises_it(tmp_path, code, how):
    path = tmp_path / "it"

    def fail(temporary):
        if how == "in words":
            raise RuntimeError(f"I/O error: {os.strerror(code)} (os error {code})")
        try:
            raise OSError(code, os.strerror(code))
        except OSError:
            if how == "of python":
                raise
            raise RuntimeError("unexpected pos 704 vs 598") from None

    with pytest.raises(OSError, match=str(path)) as caught:
        write_atomically(path, fail)
    assert (caught.value.errno, caught.value.filename) == (code, str(path))
    assert files.of_the_disk(caught.value)


@pytest.mark.parametrize(
    "fault", [ValueError("no such shape"), UserError("Permission denied"), FileNotFoundError(2, "No such file")]
)
def test_another_fault_stays_what_it_is(tmp_path, fault):
    def fail(temporary):
        raise fault

    with pytest.raises(type(fault)) as caught:
        write_atomically(tmp_path / "it", fail)
    assert caught.value is fault
    assert not files.of_the_disk(fault)


def test_many_find_out_at_once_whether_a_folder_can_be_written(tmp_path):
    faults = []

    def ask():
        try:
            for _ in range(100):
                check_writable(tmp_path / "out")
        except UserError as error:
            faults.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert not os.listdir(tmp_path / "out")


def test_a_file_in_place_of_a_folder_is_said(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="out: cannot be written"):
        check_writable(tmp_path / "out")


def test_a_link_is_removed_and_not_what_it_points_to(tmp_path):
    folder = tmp_path / "precious"
    save_folder(folder)
    (tmp_path / "link").symlink_to(folder)
    remove(tmp_path / "link")
    assert os.listdir(tmp_path) == ["precious"]
    assert (folder / "weights").exists()
