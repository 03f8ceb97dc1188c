"""Import labels into the documents of an index: find the document of each image, and update its labels."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias
from urllib.parse import urljoin

from stair_es._itertools import batched
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.documents.document import (
    LABEL_FIELDS,
    build_label_fields,
    parse_labels,
)
from stair_es.cluster.index.aliases import get_single_target
from stair_es.cluster.index.labels import (
    FieldsChange,
    add_label_fields,
    get_label_fields,
    list_missing_label_fields,
    write_label_fields,
)
from stair_es.cluster.metadata.index_metadata import check_index_format, is_ingest_index
from stair_es.cluster.metadata.names import check_alias_name, ensure_write_alias
from stair_es.cluster.metadata.policy_state import LABELS_POLICY, parse_policy_state
from stair_es.errors import IndexMismatch
from stair_es.ingest.sinks.forgotten import ForgottenList, make_entry_id
from stair_es.labels.rows import LabeledImage, RowFailure
from stair_es.sources.io.uris import from_file_uri, get_scheme, to_file_uri
from stair_es.token_policy import TokenPolicy
from stair_es.types import ProgressCallback, SparseVector

_BATCH_IMAGES = 200
_MAX_FOUND = 10_000
"""Documents of a search: what a cluster permits by default."""
_ID = re.compile(r"[0-9a-f]{32}")
_MAX_REFERENCE_CHARS = 8191
_MAX_EXAMPLES = 5

RowKind: TypeAlias = Literal["written", "unchanged", "failed", "forgotten"]
DocumentKey: TypeAlias = tuple[str, str]
"""A field, `_id` included, and its value."""


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """How labels are imported."""

    base: str = ""
    """Folder or URL at which relative paths begin."""
    min_weight: float = 0.0
    """Lighter labels are left out."""
    keep: bool = False
    """Whether documents keep the labels that they have; one that is in both gets the heavier weight. By default, replace them."""
    dry_run: bool = False


@dataclass(kw_only=True)
class ImportReport:
    """What became of the rows: `images` + `failed` rows = all kinds together."""

    alias: str
    counts: Counter[RowKind] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    """Label -> number of images that have it now."""
    reasons: Counter[str] = field(default_factory=Counter)
    examples: list[RowOutcome] = field(default_factory=list)
    """Some rows that failed."""

    def to_dict(self) -> dict[str, Any]:
        """Return the machine-readable form."""
        return {
            "index": self.alias,
            "images": self.counts.total(),
            **{kind: self.counts[kind] for kind in ("written", "unchanged", "failed", "forgotten")},
            "labels": len(self.labels),
            "failure_reasons": [{"reason": reason, "images": count} for reason, count in self.reasons.most_common()],
        }


class RowOutcome(NamedTuple):
    """What became of the labels of an image."""

    where: str
    kind: RowKind
    reason: str = ""
    image: LabeledImage | None = None
    """None for a row that couldn't be read."""


class _Found(NamedTuple):
    id: str
    uri: str
    labels: SparseVector
    """As they were imported."""
    fields: Mapping[str, Any]


class _Target(NamedTuple):
    name: str
    policy: TokenPolicy | None
    """Of its labels."""
    forgotten: ForgottenList | None
    """None if no image was ever forgotten."""


class LabelImporter:
    """Imports labels into the index of an alias that `ingest` made."""

    def __init__(self, cluster: Cluster, alias: str, options: ImportOptions) -> None:
        """Set the target. No request is sent."""
        self._cluster, self._alias, self._options = cluster, alias, options
        self._seen: set[str] = set()

    def import_labels(
        self, rows: Iterable[LabeledImage | RowFailure], progress: ProgressCallback = lambda done, total: None
    ) -> Iterator[RowOutcome]:
        """Import labels, and yield an outcome for each image, and for each row that can't be read.

        Raises:
            IndexMismatch: If the alias has no index of `ingest`, or the index has other fields with the names of ours.
            ClusterError: If the cluster fails. What was written stays, and a repeated run completes it.
        """
        target = self._open_target()
        done = 0
        for batch in batched(rows, _BATCH_IMAGES):
            images = [row for row in batch if isinstance(row, LabeledImage)]
            yield from (RowOutcome(row.where, "failed", row.reason) for row in batch if isinstance(row, RowFailure))
            yield from self._import_batch(target, images)
            done += len(batch)
            progress(done, 0)
        if not self._options.dry_run:
            self._cluster.refresh(target.name)

    def _open_target(self) -> _Target:
        check_alias_name(self._alias)
        name = get_single_target(self._cluster, self._alias)
        found: Mapping[str, Any] = self._cluster.call(self._cluster.client.indices.get, index=name)[name]
        if not is_ingest_index(found):
            raise IndexMismatch(
                f"index {name!r} (alias {self._alias!r}) was not made by stair-es ingest",
                "Use an index made by `stair-es ingest`.",
                code="foreign-index",
            )
        check_index_format(name, found)
        list_missing_label_fields(found["mappings"].get("properties", {}), name)
        if not self._options.dry_run:
            add_label_fields(self._cluster, name)
            ensure_write_alias(self._cluster, name)
        self._cluster.refresh(name)
        forgotten = ForgottenList(self._cluster, self._alias)
        policy = parse_policy_state(found, name, LABELS_POLICY).policy
        return _Target(name, policy, forgotten if forgotten.get_state() else None)

    def _import_batch(self, target: _Target, images: Sequence[LabeledImage]) -> Iterator[RowOutcome]:
        keys = [list_reference_keys(image.references, self._options.base) for image in images]
        found = self._find_documents(target.name, {key for each in keys for key in each})
        uris = [value for each in keys for name, value in each if name == "uri"]
        left_out = target.forgotten.find_ids(map(make_entry_id, uris)) if target.forgotten else ()
        changes = dict[str, FieldsChange]()
        documents_of = dict[int, list[str]]()
        outcomes = dict[int, RowOutcome]()
        for place, (image, image_keys) in enumerate(zip(images, keys, strict=True)):
            documents = next((found[key] for key in image_keys if key in found), [])
            reason = self._find_problem(documents)
            if reason:
                is_forgotten = not documents and any(make_entry_id(value) in left_out for _, value in image_keys)
                outcomes[place] = RowOutcome(image.where, "forgotten" if is_forgotten else "failed", reason, image)
                continue
            documents_of[place] = []
            for document in documents:
                self._seen.add(document.id)
                fields = build_label_fields(self._merge(document.labels, image.labels), target.policy)
                if fields != document.fields:
                    documents_of[place].append(document.id)
                    changes[document.id] = document.fields, fields
        reasons = {} if self._options.dry_run else write_label_fields(self._cluster, target.name, changes)
        for place, image in enumerate(images):
            if place not in outcomes:
                reason = next((text for id_ in documents_of[place] if (text := reasons.get(id_))), "")
                kind: RowKind = "failed" if reason else "written" if documents_of[place] else "unchanged"
                outcomes[place] = RowOutcome(image.where, kind, reason, image)
            yield outcomes[place]

    def _find_problem(self, documents: Sequence[_Found]) -> str:
        if not documents:
            return "the index has no such image"
        if len({document.uri for document in documents}) > 1:
            return "several images have this file name: name them by their paths or URIs"
        return "another row is about the same image" if documents[0].id in self._seen else ""

    def _merge(self, stored: SparseVector, labels: Mapping[str, float]) -> SparseVector:
        kept = stored.to_dict() if self._options.keep else {}
        heavy = {label: weight for label, weight in labels.items() if weight >= self._options.min_weight}
        return SparseVector.from_mapping({**kept, **{name: max(heavy[name], kept.get(name, 0.0)) for name in heavy}})

    def _find_documents(self, index: str, keys: Iterable[DocumentKey]) -> dict[DocumentKey, list[_Found]]:
        values: defaultdict[str, list[str]] = defaultdict(list)
        for name, value in sorted(keys):
            values[name].append(value)
        clauses = [{"ids": {"values": given}} if name == "_id" else {"terms": {name: given}} for name, given in values.items()]
        if not clauses:
            return {}
        body = {
            "size": _MAX_FOUND,
            "query": {"bool": {"filter": [{"bool": {"should": clauses, "minimum_should_match": 1}}]}},
            "_source": ["uri", "name", *LABEL_FIELDS],
            "sort": ["_doc"],
            "track_total_hits": False,
        }
        hits = self._cluster.search(index, body)["hits"]["hits"]
        found: defaultdict[DocumentKey, list[_Found]] = defaultdict(list)
        for hit in hits:
            source = hit["_source"]
            document = _Found(hit["_id"], str(source.get("uri", "")), parse_labels(source), get_label_fields(source))
            for key in (("_id", document.id), ("uri", document.uri), ("name", str(source.get("name", "")))):
                found[key].append(document)
        if len(hits) == _MAX_FOUND:  # others with the same names may be missing
            return {key: documents for key, documents in found.items() if key[0] != "name"}
        return dict(found)


def list_reference_keys(references: Iterable[str], base: str = "") -> list[DocumentKey]:
    """List what references to an image may name, the most exact one first; `base` is where relative paths begin."""
    return list(dict.fromkeys(key for each in references for key in _list_keys(each, base)))


def _list_keys(reference: str, base: str) -> list[DocumentKey]:
    if len(reference) > _MAX_REFERENCE_CHARS:
        return []
    scheme = get_scheme(reference)
    if scheme:
        return [("uri", to_file_uri(from_file_uri(reference)) if scheme == "file" else reference)]
    keys: list[DocumentKey] = [("_id", reference)] if _ID.fullmatch(reference) else []
    if get_scheme(base) in ("http", "https"):
        keys.append(("uri", urljoin(f"{base.rstrip('/')}/", reference)))
    elif get_scheme(base) not in ("", "file"):
        keys.append(("uri", f"{base.rstrip('/')}/{reference.lstrip('/')}"))
    elif "\0" not in reference and (base or "/" in reference):
        folder = from_file_uri(base) if get_scheme(base) else Path(base).expanduser()
        keys.append(("uri", to_file_uri(folder / reference)))
    return keys if "/" in reference else [*keys, ("name", reference)]


def summarize_outcomes(outcomes: Iterable[RowOutcome], report: ImportReport) -> Iterator[RowOutcome]:
    """Count outcomes in a report, and yield them."""
    for outcome in outcomes:
        report.counts[outcome.kind] += 1
        if outcome.kind == "failed":
            report.reasons[outcome.reason] += 1
            if len(report.examples) < _MAX_EXAMPLES:
                report.examples.append(outcome)
        elif outcome.image is not None and outcome.kind != "forgotten":
            report.labels.update(outcome.image.labels)
        yield outcome
