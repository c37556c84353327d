"""Which file system is a path on? Some things that hold on a disk of this machine do not on one that many share."""

from pathlib import Path

import psutil

SHARED = frozenset({
    "nfs", "nfs3", "nfs4", "cifs", "smb2", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs", "9p",
    "panfs", "pvfs2", "orangefs", "wekafs", "ocfs2", "gfs2", "webdav", "davfs", "virtiofs", "vboxsf", "prl_fs", "acfs",
})  # fmt: skip
"""Types that several machines may have mounted at a time; all of FUSE is taken for one too."""


def is_shared(path: Path) -> bool:
    """Whether other machines may see the file too. A path that is not there is where it would be."""
    kind = type_of(path)
    return kind in SHARED or kind.startswith("fuse")


def type_of(path: Path) -> str:
    """The type of the file system that a path is on; empty where the system does not say."""
    place = path.absolute()
    place = next(folder for folder in (place, *place.parents) if folder.exists()).resolve()
    found = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    return next((found[folder].lower() for folder in (place, *place.parents) if folder in found), "")
