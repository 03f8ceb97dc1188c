"""Small disks that fill up: a tmpfs if one can be mounted, else a limit on the size of files."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_LIMIT = 'ulimit -f "$0" && exec "$@"'
_BLOCK, _PAGE = 512, 4096
_BALLAST = "ballast"


@dataclass(frozen=True)
class Disk:
    """A folder on a small disk."""

    folder: Path
    prefix: tuple[str, ...] = ()
    """Prefix of a command that limits its disk space; empty if the folder itself is small."""

    def fill(self) -> None:
        """Fill the disk."""
        with (self.folder / _BALLAST).open("wb") as file:
            size, step = 0, 2**20
            while step >= _PAGE:
                try:
                    os.posix_fallocate(file.fileno(), size, step)
                    size += step
                except OSError:
                    step //= 2

    def clear(self) -> None:
        """Remove what `fill` wrote."""
        (self.folder / _BALLAST).unlink(missing_ok=True)


def can_mount() -> bool:
    """Return whether this process may mount a tmpfs."""
    if not shutil.which("mount") or os.geteuid() != 0:
        return False
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff"))
    return bool(effective >> 21 & 1)  # CAP_SYS_ADMIN


@contextmanager
def mount_small_disk(folder: Path, size_bytes: int) -> Iterator[Disk]:
    """Mount a disk of a given size at `folder` until the end of the `with` block."""
    folder.mkdir(parents=True)
    if not can_mount():
        yield Disk(folder, ("sh", "-c", _LIMIT, str(size_bytes // _BLOCK)))
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", folder], check=True)
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
