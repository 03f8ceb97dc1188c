"""Folders that only their owner can access."""

from __future__ import annotations

import os
from pathlib import Path


def make_owner_folder(folder: Path) -> None:
    """Make a folder and its missing parents, accessible to their owner only (0700). Existing folders stay unchanged."""
    for missing in reversed([path for path in folder.parents if not os.path.lexists(path)]):
        missing.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def make_private_folder(folder: Path) -> None:
    """Make a folder as `make_owner_folder` does, and restrict an existing one of this user to its owner.

    Only for folders that only stair-es uses: other folders may be shared on purpose, as may the target of a symbolic link, which
    stays unchanged. Windows has no such modes: there the permissions of the parent folder apply.
    """
    make_owner_folder(folder)
    if hasattr(os, "geteuid") and not folder.is_symlink():
        status = folder.stat()
        if status.st_mode & 0o077 and status.st_uid == os.geteuid():
            folder.chmod(0o700)
