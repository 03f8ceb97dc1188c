"""Folders that their owner alone may enter."""

from __future__ import annotations

import os
from pathlib import Path


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, each for its owner alone (0700). Those that are there stay as they are.

    Raises:
        OSError: It can't be made.
    """
    for missing in reversed([path for path in folder.parents if not os.path.lexists(path)]):
        missing.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def make_private(folder: Path) -> None:
    """Make a folder as `make_folder`, and close one that is there already and belongs to this user to others.

    Only for folders that nobody but stair-es makes: another one may be shared on purpose, as what a link leads to may be, which
    stays as it is. Windows has no such modes: what holds there are the rights of the folder above.

    Raises:
        OSError: It can't be made.
    """
    make_folder(folder)
    if hasattr(os, "geteuid") and not folder.is_symlink():
        seen = folder.stat()
        if seen.st_mode & 0o077 and seen.st_uid == os.geteuid():
            folder.chmod(0o700)
