"""On which file systems several machines may meet, by what the system says of its mounts."""

from collections import namedtuple
from pathlib import Path

import pytest

from suite.common import file_systems

Mount = namedtuple("Mount", "mountpoint fstype")


@pytest.mark.parametrize(
    ("place", "kind", "shared"),
    [
        ("/scratch/runs/x", "lustre", True),
        ("/scratch/local/x", "ext4", False),
        ("/home/me/not/there", "nfs4", True),
        ("/bucket/x", "fuse.gcsfuse", True),
        ("/else", "ext4", False),
    ],
)
def test_the_nearest_mount_above_a_path_says_what_it_is(place, kind, shared, monkeypatch):
    mounts = {"/": "ext4", "/scratch": "lustre", "/scratch/local": "ext4", "/home": "nfs4", "/bucket": "fuse.gcsfuse"}
    found = [Mount(point, fstype) for point, fstype in mounts.items()]
    monkeypatch.setattr(file_systems.psutil, "disk_partitions", lambda all: found)
    monkeypatch.setattr(Path, "exists", lambda self: "x" not in self.parts and "there" not in self.parts)
    assert file_systems.type_of(Path(place)) == kind
    assert file_systems.is_shared(Path(place)) is shared


def test_of_this_disk_something_is_known(tmp_path):
    assert file_systems.type_of(tmp_path / "not" / "there")
