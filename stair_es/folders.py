"""Folders that their owner alone may enter."""

from __future__ import annotations

import os
from pathlib import Path


def make_private(folder: Path) -> None:
    """Make a folder for its owner alone (0700), and those above it that are missing likewise.

    One that is there already and belongs to this user is closed to others; those above it stay as they are, since they may be
    shared on purpose. Windows has no such modes: what holds there are the rights of the folder above.

    Raises:
        OSError: It can't be made.
    """
    for missing in reversed([path for path in folder.parents if not os.path.lexists(path)]):
        missing.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "geteuid"):
        seen = folder.stat()
        if seen.st_mode & 0o077 and seen.st_uid == os.geteuid():
            folder.chmod(0o700)
