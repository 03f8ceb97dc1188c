"""The sink `ndjson`: documents as files in a folder, each the body of one `_bulk` request.

    stair-es ingest photos.zip --index shop --sink ndjson:folder=/data/out
    for part in /data/out/shop-*/*.ndjson; do
        curl -H 'Content-Type: application/x-ndjson' --data-binary @"$part" "$URL/shop/_bulk"
    done

It shows two things: the writer carries a path, never an open file, so that threads and Ray workers on any machine that sees the
folder can write concurrently; and a ledger tells a rerun what is stored.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from stair_es.api import (
    BulkRequestStats,
    BulkResult,
    Documents,
    IndexedDocument,
    IngestError,
    SinkKind,
    SinkPlan,
    SinkSession,
    StoredVersion,
    UsageError,
)
from stair_es_example.ndjson_ledger import get_ledger


@dataclass(frozen=True, kw_only=True)
class NdjsonWriter:
    """See `SinkWriter`. Frozen and small: it is pickled to every worker."""

    folder: Path

    def find_by_id(self, ids: Sequence[str]) -> dict[str, StoredVersion]:
        """See `SinkWriter`."""
        documents = get_ledger(self.folder).read_documents()
        return {id_: documents[id_].stored for id_ in ids if id_ in documents}

    def find_by_uri(self, uris: Sequence[str]) -> dict[str, StoredVersion]:
        """See `SinkWriter`."""
        wanted = set(uris)
        documents = get_ledger(self.folder).read_documents().values()
        return {document.stored.uri: document.stored for document in documents if document.stored.uri in wanted}

    def write(self, documents: Documents, chunk_bytes: int) -> BulkResult:
        """Write one file per call: a call already has about `chunk_bytes`.

        The result has a reason for each document that can't be written; an exception would end the run.
        """
        outcomes: dict[str, str | None] = {}
        lines: list[bytes] = []
        for id_, source in documents:
            try:
                lines += [orjson.dumps({"index": {"_id": id_}}), orjson.dumps(source)]
                outcomes[id_] = None
            except TypeError as error:
                outcomes[id_] = f"not JSON: {error}"
        return BulkResult(outcomes, [self.write_file(lines, len(documents))])

    def update(self, documents: Documents) -> BulkResult:
        """See `SinkWriter`."""
        lines = [line for id_, fields in documents for line in (_serialize_action("update", id_), orjson.dumps({"doc": fields}))]
        return BulkResult({id_: None for id_, _ in documents}, [self.write_file(lines, len(documents))])

    def write_file(self, lines: Iterable[bytes], documents: int) -> BulkRequestStats:
        """Write a new file atomically: a process that is killed here leaves no file that looks complete.

        Names begin with the time, so that sorting them gives the order of writing.
        """
        start_s = time.monotonic()
        body = b"".join(line + b"\n" for line in lines)
        final = self.folder / f"{time.time_ns():020}-{uuid.uuid4().hex[:8]}.ndjson"
        unfinished = final.with_suffix(".unfinished")
        try:
            with unfinished.open("wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(final)
        except OSError as error:
            raise IngestError(f"can't write {final}: {error}", "Give the sink a folder that every worker can write.") from error
        return BulkRequestStats(len(body), documents, time.monotonic() - start_s, busy=False)


@dataclass(frozen=True, kw_only=True)
class NdjsonSession(SinkSession):
    """See `SinkSession`."""

    writer: NdjsonWriter
    index: str
    is_empty: bool
    label: str = "NDJSON files"

    def iterate_documents(self, sources: Sequence[str]) -> Iterator[IndexedDocument]:
        """See `SinkSession`: `--resync` compares these documents with the sources."""
        for id_, document in get_ledger(self.writer.folder).read_documents().items():
            if document.source in sources:
                yield IndexedDocument(id=id_, uri=document.stored.uri, source=document.source)

    def delete_documents(self, documents: Sequence[IndexedDocument]) -> BulkResult:
        """See `SinkSession`. A ledger without versions can't tell whether a document was written again."""
        lines = [_serialize_action("delete", document.id) for document in documents]
        return BulkResult({document.id: None for document in documents}, [self.writer.write_file(lines, len(documents))])


class NdjsonKind(SinkKind):
    """See `SinkKind`."""

    api_version = 1
    name = "ndjson"
    description = "bodies of bulk requests as files (option: folder=PATH)"

    def open(self, plan: SinkPlan) -> NdjsonSession:
        """See `SinkKind.open`."""
        folder = _resolve_folder(plan)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise IngestError(f"can't create {folder}: {error}", "Give another one: --sink ndjson:folder=PATH.") from error
        return _build_session(folder)

    def open_readonly(self, plan: SinkPlan) -> NdjsonSession | None:
        """Open the sink for a dry run, without creating anything, not even the folder."""
        folder = _resolve_folder(plan)
        return _build_session(folder) if folder.is_dir() else None


def _resolve_folder(plan: SinkPlan) -> Path:
    """Return the folder. A different model or different settings have a different folder, just as they have a different index."""
    options: Mapping[str, str] = plan.options
    if set(options) != {"folder"} or not options["folder"]:
        raise UsageError("the sink 'ndjson' requires the option folder, and has no other", "Write --sink ndjson:folder=PATH.")
    return Path(options["folder"]).absolute() / f"{plan.alias}-{plan.digest}"


def _build_session(folder: Path) -> NdjsonSession:
    return NdjsonSession(writer=NdjsonWriter(folder=folder), index=str(folder), is_empty=not any(folder.glob("*.ndjson")))


def _serialize_action(name: str, id_: str) -> bytes:
    action: dict[str, Any] = {name: {"_id": id_}}
    return orjson.dumps(action)


KIND = NdjsonKind()
