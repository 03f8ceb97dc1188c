"""The Python code that a model contains, and the consent of this machine's user to run it.

Consent is for one version of one model: a commit of a repository, or the contents of the Python files in a folder. There is one
list of it, the versions that the settings name and those that were agreed to on a terminal, which the data folder remembers. Only
the command line asks, and never for a model that only an index names.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

from stair_es.config.defaults import ENV_TRUST_REMOTE_CODE, DataDir
from stair_es.config.settings import Settings
from stair_es.errors import ModelError
from stair_es.system.name_list import NameList

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OwnCode:
    """The Python code of a model."""

    name: str
    """Id of the repository, or the absolute path of the folder."""
    revision: str
    """Commit of the repository, or the hash of the Python files."""
    place: str
    """Where to read it."""
    references: tuple[str, ...]
    """What the model's configuration names."""

    @property
    def key(self) -> str:
        """Return the entry of the list of trusted code."""
        return f"{self.name}@{self.revision}"

    def describe(self) -> str:
        """Return which version would run."""
        kind, version = ("folder", "hash") if self.name == self.place else ("repository", "commit")
        return f"the {kind} {self.name} at {version} {self.revision} contains Python code, which would run on this machine"


_ask: ContextVar[Callable[[OwnCode], bool] | None] = ContextVar("ask", default=None)


@contextmanager
def ask_with(ask: Callable[[OwnCode], bool] | None) -> Iterator[None]:
    """Ask for consent with this function within this context; with None, ask nobody."""
    token = _ask.set(ask)
    try:
        yield
    finally:
        _ask.reset(token)


def hash_python_files(folder: Path) -> str:
    """Return a SHA-256 over the Python files in a folder, in hexadecimal."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*.py") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\0".encode())
    return digest.hexdigest()


def check_consent(code: OwnCode, settings: Settings) -> Settings:
    """Return settings that trust this code, for other processes as well; ask for consent if there is none yet.

    Raises:
        ModelError: If the code is not trusted, or part of it is in another repository.
    """
    foreign = next((reference for reference in code.references if "--" in reference), None)
    if foreign is not None:
        raise ModelError(
            f"the model {code.name!r} names Python code of another repository, at any of its commits: {foreign}",
            "Copy the model and that code into one folder, change the reference, and use the folder.",
            code="remote-code-elsewhere",
        )
    if code.key not in settings.trusted_code and code.key not in _list_remembered(settings.home).read():
        _request_consent(code, settings.home)
    return replace(settings, trusted_code=settings.trusted_code | {code.key})


def _request_consent(code: OwnCode, home: DataDir) -> None:
    """Ask, and remember a yes; raise ModelError without one."""
    ask = _ask.get()
    if ask is None or not ask(code):
        raise ModelError(
            f"the model {code.name!r} contains Python code, which would run on this machine: {', '.join(code.references)}",
            f"Read it at {code.place}. If you trust it, set {ENV_TRUST_REMOTE_CODE}={code.key}, or name the model with --model "
            "on a terminal, where stair-es asks.",
            code="remote-code-not-trusted",
        )
    remembered = _list_remembered(home)
    try:
        remembered.add(code.key)
        logger.info("remembered in %s: remove the line to be asked again", remembered.path)
    except OSError as error:
        logger.warning("this answer can't be remembered in %s: %s", remembered.path, error.strerror or error)


def _list_remembered(home: DataDir) -> NameList:
    return NameList(path=home.path / "trusted-code.json")
