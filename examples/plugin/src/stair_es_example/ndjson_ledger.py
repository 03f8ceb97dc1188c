"""The ledger of the sink `ndjson`: the documents that the files of a folder contain.

Every process reads each file once and keeps a small value per document: fine for an example, but a sink for millions of images
should query a database instead.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from stair_es.api import StoredVersion


@dataclass(frozen=True)
class Document:
    """One stored document."""

    stored: StoredVersion
    source: str


class Ledger:
    """The documents of a folder. Several threads may use it concurrently."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._read: set[str] = set()
        self._documents: dict[str, Document] = {}

    def read_documents(self) -> dict[str, Document]:
        """Read new files; return `{_id: document}`, a copy."""
        with self._lock:
            for path in sorted(self._folder.glob("*.ndjson")):
                if path.name not in self._read:
                    self._apply(path.read_bytes())
                    self._read.add(path.name)
            return dict(self._documents)

    def _apply(self, body: bytes) -> None:
        lines = iter(body.splitlines())
        for line in lines:
            [(action, about)] = orjson.loads(line).items()
            id_ = about["_id"]
            if action == "delete":
                self._documents.pop(id_, None)
            elif action == "index":
                self._documents[id_] = _build_document(id_, orjson.loads(next(lines)))
            else:
                changed = orjson.loads(next(lines))["doc"]
                if id_ in self._documents:
                    self._documents[id_] = _update_document(self._documents[id_], changed)


def _build_document(id_: str, source: dict[str, Any]) -> Document:
    stored = StoredVersion(
        id=id_,
        uri=source["uri"],
        sha256=source["sha256"],
        fingerprint=source["fingerprint"],
        version=source.get("version"),
    )
    return Document(stored, source["source"])


def _update_document(document: Document, changed: dict[str, Any]) -> Document:
    known = {name: value for name, value in changed.items() if name in ("uri", "version", "fingerprint")}
    return replace(document, stored=replace(document.stored, **known))


@lru_cache(maxsize=4)
def get_ledger(folder: Path) -> Ledger:
    """Return the ledger of a folder, one per process."""
    return Ledger(folder)
