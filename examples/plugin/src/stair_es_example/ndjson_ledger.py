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
class LedgerDocument:
    """One stored document."""

    stored: StoredVersion
    source: str


class Ledger:
    """Reads new files on each call. Several threads may use it concurrently."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._read: set[str] = set()
        self._documents: dict[str, LedgerDocument] = {}

    def read_documents(self) -> dict[str, LedgerDocument]:
        """Return `{_id: document}`, a copy."""
        with self._lock:
            for path in sorted(self._folder.glob("*.ndjson")):
                if path.name not in self._read:
                    self._apply_actions(path.read_bytes())
                    self._read.add(path.name)
            return dict(self._documents)

    def _apply_actions(self, body: bytes) -> None:
        lines = iter(body.splitlines())
        for line in lines:
            [(action, metadata)] = orjson.loads(line).items()
            id_ = metadata["_id"]
            if action == "delete":
                self._documents.pop(id_, None)
            elif action == "index":
                self._documents[id_] = _parse_document(id_, orjson.loads(next(lines)))
            else:
                changed = orjson.loads(next(lines))["doc"]
                if id_ in self._documents:
                    self._documents[id_] = _update_document(self._documents[id_], changed)


def _parse_document(id_: str, source: dict[str, Any]) -> LedgerDocument:
    stored = StoredVersion(
        id=id_,
        uri=source["uri"],
        sha256=source["sha256"],
        fingerprint=source["fingerprint"],
        version=source.get("version"),
    )
    return LedgerDocument(stored, source["source"])


def _update_document(document: LedgerDocument, changed: dict[str, Any]) -> LedgerDocument:
    stored_fields = {name: value for name, value in changed.items() if name in ("uri", "version", "fingerprint")}
    return replace(document, stored=replace(document.stored, **stored_fields))


@lru_cache(maxsize=4)
def get_ledger(folder: Path) -> Ledger:
    """Return the ledger of a folder, one per process."""
    return Ledger(folder)
