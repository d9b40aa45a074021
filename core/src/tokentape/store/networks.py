"""Tells whether a tape is on a network file system, where SQLite cannot rely on locks and shared memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

# What Linux says of everything that is mounted; elsewhere there is no such file, and nothing is said.
MOUNTS: Final = Path("/proc/self/mounts")
NETWORKED: Final = frozenset(
    {
        *("9p", "afs", "ceph", "cifs", "coda", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs", "pvfs2"),
        *("fuse.ceph", "fuse.gcsfuse", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs"),
        *("fuse.s3backer", "fuse.smbnetfs", "fuse.sshfs", "fuse.davfs", "davfs"),
    }
)
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


def network_of(path: Path) -> str | None:
    """Type of the network file system on which a file is or would be, such as `nfs4`; None where it is on no such one.

    Args:
        path: the file; it need not exist.
    """
    try:
        mounts = MOUNTS.read_text("utf-8", "surrogateescape")
        folders = [path.resolve(), *path.resolve().parents]
    except OSError:
        return None
    # What was mounted last at a folder is what one sees there.
    kinds = {Path(folder): kind for folder, kind in map(_folder_and_kind, mounts.splitlines())}
    kind = next((kinds[folder] for folder in folders if folder in kinds), None)
    return kind if kind in NETWORKED else None


def _folder_and_kind(line: str) -> tuple[str, str]:
    """Of `server:/export /mnt/share nfs4 rw,… 0 0` the second and third field; a space is written in octal."""
    _, folder, kind, *_ = (*line.split(" "), "", "", "")
    return _OCTAL.sub(lambda code: chr(int(code[1], 8)), folder), kind
