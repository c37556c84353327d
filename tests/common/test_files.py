"""Files are whole or not there: under a full disk, a read-only one, a power cut, and beside another process."""

import errno
import os
import resource
import threading

import pytest

from suite.common import files
from suite.common.errors import UserError, in_words, one_line_errors
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
    ("write", "synced"), [(lambda p: p.write_text("x"), f".it.{os.getpid()}.tmp"), (save_folder, "weights")]
)
def test_the_disk_holds_what_is_written_before_it_gets_its_name_and_the_name_after(tmp_path, steps, write, synced):
    write_atomically(tmp_path / "it", write)
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
def test_on_a_full_disk_the_old_file_stays_and_the_line_names_it(tmp_path, capsys, small_files, write):
    path = tmp_path / "it"
    path.write_text("old")

    @one_line_errors
    def main():
        write_atomically(path, write)

    assert main() == 2
    assert (
        capsys.readouterr().err
        == f"error: disk full while writing {path}; free some space and start again: nothing finished is lost\n"
    )
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["it"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "disk full while writing {}"), (errno.EDQUOT, "disk full while writing {}"),
        (errno.EROFS, "{}: the disk is read-only"), (errno.EACCES, "no permission to write {}"), (errno.ENOENT, ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("hidden", [False, True])
def test_a_fault_of_the_disk_names_the_file(tmp_path, code, words, hidden):
    """Raised by Python without a name, or as words by a library."""
    path = tmp_path / "it"

    def fail(temporary):
        raise (
            RuntimeError(f"inline_container.cc: {os.strerror(code)} (os error {code})")
            if hidden
            else OSError(code, os.strerror(code))
        )

    with pytest.raises((OSError, RuntimeError)) as caught:
        write_atomically(path, fail)
    assert isinstance(caught.value, RuntimeError) == (hidden and not words)
    if words:
        assert in_words(caught.value).startswith(words.format(path))


def test_a_file_that_could_not_be_read_is_not_said_to_be_written(tmp_path, monkeypatch):
    path = tmp_path / "it"
    path.write_text("x")
    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    assert in_words(error).startswith(f"no permission to write {path}")
    monkeypatch.setattr("suite.common.errors.os.access", lambda name, mode: mode != os.R_OK)
    assert in_words(error) == f"no permission to read {path}"


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
