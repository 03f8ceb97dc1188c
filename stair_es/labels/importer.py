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
from stair_es.cluster.documents.document import LABEL_FIELDS, build_label_fields, parse_labels
from stair_es.cluster.documents.edit import CHANGED, UNCHANGED, DocumentEdit, edit_documents
from stair_es.cluster.index.labels import (
    LabelTarget,
    add_label_fields,
    check_label_target,
    get_label_target,
)
from stair_es.cluster.metadata.names import ensure_write_alias
from stair_es.errors import UsageError
from stair_es.ingest.sinks.forgotten import ForgottenList, make_entry_id
from stair_es.labels.rows import MAX_LABELS, LabeledImage, RowFailure
from stair_es.sources.io.uris import from_file_uri, get_scheme, to_file_uri
from stair_es.token_policy import TokenPolicy
from stair_es.types import ProgressCallback, SparseVector, is_utf8

_BATCH_IMAGES = 200
_MAX_FOUND = 10_000
"""Documents of a search: what a cluster permits by default."""
_ID = re.compile(r"[0-9a-f]{32}")
_MAX_REFERENCE_CHARS = 8191
_MAX_EXAMPLES, _MAX_REASONS = 5, 100

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
    """Label -> number of images for which it was given."""
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
    image: LabeledImage | Mapping[str, Any] | None = None
    """The image, or a row that couldn't be read."""


class _Found(NamedTuple):
    id: str
    uri: str


class LabelImporter:
    """Imports labels into the index of an alias that `ingest` made."""

    def __init__(self, cluster: Cluster, alias: str, options: ImportOptions) -> None:
        """Set the target. No request is sent.

        Raises:
            UsageError: If relative paths can't begin at the base.
        """
        self._cluster, self._alias, self._options = cluster, alias, options
        self._seen: set[str] = set()
        if options.base and not _list_keys("a/b", options.base):
            raise UsageError(
                f"not a folder or URL: {options.base!r}",
                "Give the place where the paths in FILE begin.",
                code="invalid-image-base",
            )

    def import_labels(
        self, rows: Iterable[LabeledImage | RowFailure], progress: ProgressCallback = lambda done, total: None
    ) -> Iterator[RowOutcome]:
        """Import labels, and yield an outcome for each image, and for each row that can't be read.

        Raises:
            IndexMismatch: If the alias has no index of `ingest`, or the index has other fields with the names of ours; or, at the
                end, if the index was replaced or the policy of labels changed meanwhile.
            ClusterError: If the cluster fails. What was written stays, and a repeated run completes it.
        """
        target = get_label_target(self._cluster, self._alias)
        if not self._options.dry_run:
            add_label_fields(self._cluster, target.name)
            ensure_write_alias(self._cluster, target.name)
        self._cluster.refresh(target.name)
        images_forgotten = ForgottenList(self._cluster, self._alias)
        forgotten = images_forgotten if images_forgotten.get_state() else None
        done = 0
        for batch in batched(rows, _BATCH_IMAGES):
            images = [row for row in batch if isinstance(row, LabeledImage)]
            yield from (RowOutcome(row.where, "failed", row.reason, row.row) for row in batch if isinstance(row, RowFailure))
            yield from self._import_batch(target, images, forgotten)
            done += len(batch)
            progress(done, 0)
        if not self._options.dry_run:
            self._cluster.refresh(target.name)
            check_label_target(self._cluster, self._alias, target)

    def _import_batch(
        self, target: LabelTarget, images: Sequence[LabeledImage], forgotten: ForgottenList | None
    ) -> Iterator[RowOutcome]:
        keys = [list_reference_keys(image.references, self._options.base) for image in images]
        found = self._find_documents(target.name, keys)
        uris = [value for each in keys for name, value in each if name == "uri"]
        left_out = forgotten.find_ids(map(make_entry_id, uris)) if forgotten else ()
        labels_of, documents_of, reasons = dict[str, dict[str, float]](), dict[int, list[str]](), dict[int, str]()
        for place, image in enumerate(images):
            documents = next((found[key] for key in keys[place] if key in found), [])
            if reason := self._find_problem(documents):
                is_forgotten = not documents and any(make_entry_id(value) in left_out for _, value in keys[place])
                reasons[place] = "" if is_forgotten else reason
                continue
            documents_of[place] = [document.id for document in documents]
            self._seen.update(documents_of[place])
            for id_ in documents_of[place]:
                _add_labels(labels_of.setdefault(id_, {}), image.labels)
        edits = {id_: self._build_edit(labels, target.state.policy) for id_, labels in labels_of.items()}
        edited = edit_documents(self._cluster, target.name, edits, LABEL_FIELDS, dry_run=self._options.dry_run)
        for place, image in enumerate(images):
            if place in reasons:
                yield RowOutcome(image.where, "failed" if reasons[place] else "forgotten", reasons[place], image)
                continue
            results = [edited[id_] for id_ in documents_of[place]]
            failure = next((result for result in results if result not in (CHANGED, UNCHANGED)), "")
            is_changed = CHANGED in results
            yield RowOutcome(image.where, "failed" if failure else "written" if is_changed else "unchanged", failure, image)

    def _find_problem(self, documents: Sequence[_Found]) -> str:
        if not documents:
            return "the index has no such image"
        if len({document.uri for document in documents}) > 1:
            return "several images have this file name: name them by their paths or URIs"
        is_repeated = not self._options.keep and documents[0].id in self._seen
        return "another row is about the same image" if is_repeated else ""

    def _build_edit(self, labels: Mapping[str, float], policy: TokenPolicy | None) -> DocumentEdit:
        def edit(source: Mapping[str, Any]) -> Mapping[str, Any]:
            merged = parse_labels(source).to_dict() if self._options.keep else {}
            _add_labels(merged, {label: weight for label, weight in labels.items() if weight >= self._options.min_weight})
            heaviest = SparseVector.from_mapping(merged).top(MAX_LABELS)
            return build_label_fields(heaviest, policy)

        return edit

    def _find_documents(self, index: str, keys: Sequence[Sequence[DocumentKey]]) -> dict[DocumentKey, list[_Found]]:
        """Find the documents by id and URI, and by file name those of which nothing else was found."""
        found = self._search_documents(index, {key for each in keys for key in each if key[0] != "name"})
        names = {key for each in keys if not any(other in found for other in each) for key in each if key[0] == "name"}
        by_name = self._search_documents(index, names)
        if sum(map(len, by_name.values())) >= _MAX_FOUND:  # others may be missing
            by_name = {key: documents for name in names for key, documents in self._search_documents(index, {name}, 2).items()}
        return {**{key: each for key, each in by_name.items() if key[0] == "name"}, **found}

    def _search_documents(
        self, index: str, keys: Iterable[DocumentKey], size: int = _MAX_FOUND
    ) -> dict[DocumentKey, list[_Found]]:
        values: defaultdict[str, list[str]] = defaultdict(list)
        for name, value in sorted(keys):
            values[name].append(value)
        clauses = [{"ids": {"values": given}} if name == "_id" else {"terms": {name: given}} for name, given in values.items()]
        if not clauses:
            return {}
        query = {"bool": {"filter": [{"bool": {"should": clauses, "minimum_should_match": 1}}]}}
        body = {"size": size, "query": query, "_source": ["uri", "name"], "sort": ["_doc"], "track_total_hits": False}
        found: defaultdict[DocumentKey, list[_Found]] = defaultdict(list)
        for hit in self._cluster.search(index, body)["hits"]["hits"]:
            source = hit["_source"]
            document = _Found(hit["_id"], str(source.get("uri", "")))
            for key in (("_id", document.id), ("uri", document.uri), ("name", str(source.get("name", "")))):
                if key[1] in values[key[0]]:
                    found[key].append(document)
        return dict(found)


def _add_labels(labels: dict[str, float], others: Mapping[str, float]) -> None:
    labels |= {label: max(weight, labels.get(label, 0.0)) for label, weight in others.items()}


def list_reference_keys(references: Iterable[str], base: str = "") -> list[DocumentKey]:
    """List what references to an image may name, the most exact one first; `base` is where relative paths begin."""
    return list(dict.fromkeys(key for each in references for key in _list_keys(each, base)))


def _list_keys(reference: str, base: str) -> list[DocumentKey]:
    if len(reference) > _MAX_REFERENCE_CHARS or not is_utf8(reference):
        return []
    try:
        return _resolve_keys(reference, base)
    except (ValueError, OSError, RuntimeError):  # not a URL, or a path of this machine
        return []


def _resolve_keys(reference: str, base: str) -> list[DocumentKey]:
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
            known = outcome.reason in report.reasons or len(report.reasons) < _MAX_REASONS
            report.reasons[outcome.reason if known else "other reasons"] += 1
            if len(report.examples) < _MAX_EXAMPLES:
                report.examples.append(outcome)
        elif isinstance(outcome.image, LabeledImage) and outcome.kind != "forgotten":
            report.labels.update(outcome.image.labels)
        yield outcome
