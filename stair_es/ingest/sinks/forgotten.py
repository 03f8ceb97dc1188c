"""Forgotten images: their list, and the removal of their documents from all indices of an alias.

The list of the alias `photos` is the hidden index `photos.forgotten`. It has a document for each URI and for each content, whose
`_id` is a hash: a list of URIs would itself be personal data. It isn't a part of `_meta`, since each write of that replaces all
of it: a policy that is applied at the same time would take entries back. Besides, `_meta` would have to be short, as a part of
the cluster state, and each build would need a copy.

An image is listed before its documents are deleted, so that a repeated run completes what a killed one began, and an ingest that
runs meanwhile notices.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from stair_es._itertools import batched
from stair_es.cluster.bulk.writer import BulkWriter
from stair_es.cluster.client.capabilities import get_product
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.opensearch import OpenSearch, exceptions
from stair_es.cluster.client.products import ManagedProduct
from stair_es.cluster.documents.document import make_content_id, make_document_id
from stair_es.cluster.documents.read import WriteVersion, find_last_writes, get_documents_by_id, paginate_hits
from stair_es.cluster.index.aliases import get_single_target
from stair_es.cluster.index.lifecycle import create_index, fit_index_body
from stair_es.cluster.metadata.index_metadata import (
    build_forgotten_list_meta,
    check_index_format,
    get_forgotten_list_meta,
    get_index_identity,
    get_index_meta,
    is_ingest_index,
)
from stair_es.cluster.metadata.names import (
    FORGOTTEN_LIST_SUFFIX,
    WRITE_ALIAS_OPTIONS,
    check_alias_name,
    ensure_write_alias,
    make_write_alias,
)
from stair_es.cluster.token_index.index import delete_orphan_token_indices, get_token_index_state
from stair_es.cluster.token_index.sync import reconcile_token_index
from stair_es.errors import ClusterError, IndexMismatch, IndexNotFound
from stair_es.ingest.sinks.base import PAGE_MARK, get_parent_uri, list_image_keys
from stair_es.sources.io.uris import is_row_uri
from stair_es.store import BulkResult

MAX_NAMED_COPIES = 20
"""URIs of other images with the same content that a result names."""
_BATCH_IDS = 1000
_BATCH_URIS = 100
"""Each is a clause of a query, of which a cluster may permit 1,024."""
_PAGE_SIZE = 1000
_MAX_URI_BYTES = 8191
"""A longer URI isn't indexed, so that its document is found by its id only."""
_MAX_STALLED_ROUNDS = 5
_HIDDEN_WRITE_ALIAS = {**WRITE_ALIAS_OPTIONS, "is_hidden": True}
"""Patterns such as `photos*` don't find a hidden index, unless one of its aliases isn't hidden."""


@dataclass(frozen=True)
class ForgottenList:
    """The list of an alias. Picklable, as its cluster is."""

    cluster: Cluster
    alias: str

    @property
    def index(self) -> str:
        """Name of the index."""
        return f"{self.alias}{FORGOTTEN_LIST_SUFFIX}"

    def get_state(self) -> tuple[str, Sequence[WriteVersion | None]] | None:
        """Return a value that changes with each entry; None if there is no list."""
        params = {"ignore_unavailable": "true"}
        found = self.cluster.call(self.cluster.client.indices.get, index=self.index, params=params)
        if not found:
            return None
        _check_list(found.get(self.index, {}), self.index, self.alias)
        self.cluster.refresh(self.index)
        return get_index_identity(found[self.index]), find_last_writes(self.cluster, self.index)

    def find_ids(self, ids: Iterable[str]) -> set[str]:
        """Return those of the ids that are listed, in real time; none if there is no list."""
        return {document["_id"] for document in self._get_entries(ids)}

    def _get_entries(self, ids: Iterable[str], *fields: str) -> list[dict[str, Any]]:
        try:
            return [
                entry
                for part in batched(dict.fromkeys(ids), _BATCH_IDS)
                for entry in get_documents_by_id(self.cluster, self.index, part, fields)
            ]
        except ClusterError as error:
            if not isinstance(error, IndexNotFound) and error.status != 404:
                raise
            return []

    def add(self, contents: Mapping[str, Collection[str]]) -> None:
        """List URIs, each with the ids of its contents; those that an earlier run listed with it stay.

        Raises:
            IndexMismatch: If another index has the name of the list.
            ClusterError: If the cluster fails. It can be repeated.
        """
        product = get_product(self.cluster)
        self.cluster.call(_try_create_list, self.cluster.client, self.index, self.alias, product)
        ids = {make_entry_id(uri): set(found) for uri, found in contents.items()}
        for entry in self._get_entries(ids, "contents"):
            ids[entry["_id"]].update(entry["_source"].get("contents", ()))
        entries: dict[str, dict[str, Any]] = {id_: {} for found in ids.values() for id_ in found}
        entries |= {id_: {"contents": sorted(found)} for id_, found in ids.items()}
        _check_written(self._writer.write(list(entries.items())))

    def remove(self, ids: Collection[str]) -> set[str]:
        """Remove entries, and those of the contents that were listed with a URI; return those of `ids` that were listed."""
        entries = self._get_entries(ids, "contents")
        found = {entry["_id"] for entry in entries}
        contents = {id_ for entry in entries for id_ in entry["_source"].get("contents", ())}
        if found:
            _check_written(self._writer.delete(sorted(found | contents)))
        return found

    @property
    def _writer(self) -> BulkWriter:
        return BulkWriter(cluster=self.cluster, index=self.index)


def make_entry_id(uri: str) -> str:
    """Make the id under which an image is listed by its URI.

    A row of a table, or a line of a file, is a position, which another image has when an earlier row is removed. So it is an id
    that no guard looks for, and only its content keeps it out.
    """
    return make_document_id(f"row {uri}" if is_row_uri(uri) else uri)


def _try_create_list(client: OpenSearch, name: str, alias: str, product: ManagedProduct) -> None:
    """Create the list, unless it exists, in one attempt."""
    write_alias = make_write_alias(name)
    settings = {"index": {"number_of_shards": 1, "auto_expand_replicas": "0-1", "hidden": True}}
    meta = {"stair_es": build_forgotten_list_meta(alias)}
    body = {
        "settings": settings,
        "mappings": {"_meta": meta, "dynamic": False},
        "aliases": {write_alias: _HIDDEN_WRITE_ALIAS},
    }
    if not client.indices.exists(index=name):
        try:
            create_index(client, name, fit_index_body(body, product))
        except exceptions.TransportError:
            if not client.indices.exists(index=name):  # otherwise another run was first
                raise
    described = client.indices.get(index=name).get(name, {})
    _check_list(described, name, alias)
    if write_alias not in described["aliases"]:
        client.indices.put_alias(index=name, name=write_alias, body=_HIDDEN_WRITE_ALIAS)


def _check_list(described: Mapping[str, Any], name: str, alias: str) -> None:
    """Raise IndexMismatch unless an index of a GET index response is the list of an alias."""
    if get_forgotten_list_meta(described).get("forgotten_of") != alias:
        raise IndexMismatch(
            f"the list of forgotten images of {alias!r} can't be named {name!r}: another index has that name",
            "Rename that index, or remove the alias of that name.",
            code="forgotten-list-name-taken",
        )


def _check_written(result: BulkResult) -> None:
    for id_, reason in result.outcomes.items():
        if reason is not None:
            raise ClusterError(
                f"the cluster refused to change the document {id_}: {reason}",
                "Fix the cause, and run the same command again: it completes what is missing.",
                code="not-forgotten",
            )


def purge_index(images: ForgottenList, index: str) -> int:
    """Delete the documents of listed images from an index, as of the last refresh, and refresh it; return how many."""
    body = {
        "query": {"bool": {"filter": [{"exists": {"field": "uri"}}]}},
        "_source": False,
        "docvalue_fields": ["uri", "sha256"],
    }
    writer, deleted = BulkWriter(cluster=images.cluster, index=index), 0
    for hits in paginate_hits(images.cluster, index, body, size=_PAGE_SIZE):
        keys = [list_image_keys(hit["fields"]["uri"][0], *hit["fields"].get("sha256", ())[:1]) for hit in hits]
        listed = images.find_ids(id_ for each in keys for id_ in each)
        gone = [hit for hit, each in zip(hits, keys, strict=True) if not listed.isdisjoint(each)]
        _delete_hits(writer, gone)
        deleted += len(gone)
    if deleted:
        images.cluster.refresh(index)
    return deleted


def _delete_hits(writer: BulkWriter, hits: Sequence[Mapping[str, Any]]) -> None:
    options = {hit["_id"]: {"routing": hit["_routing"]} if "_routing" in hit else {} for hit in hits}
    _check_written(writer.delete(list(options), options))


@dataclass(frozen=True, kw_only=True)
class ForgottenImage:
    """What was stored of an image, or of the pages of a document."""

    uri: str
    documents: dict[str, int] = field(default_factory=dict)
    """Index -> number of removed documents; of those that would be removed, in a dry run."""
    copies: tuple[str, ...] = ()
    """URIs of images with the same content that stay in the index: some of them."""
    copy_count: int = 0


class _Targets:
    """The URIs to forget, and how their documents are found."""

    def __init__(self, uris: Iterable[str]) -> None:
        self.uris = list(dict.fromkeys(uris))
        self._known = frozenset(self.uris)
        self._by_id = {make_document_id(uri): uri for uri in self.uris}

    def build_queries(self, id_field: str) -> Iterator[dict[str, Any]]:
        """Build the queries for all of them; `id_field` has the id of an image."""
        for part in batched(self.uris, _BATCH_URIS):
            short = [uri for uri in part if len(uri.encode()) <= _MAX_URI_BYTES]
            clauses = [
                {"terms": {id_field: list(map(make_document_id, part))}},
                {"terms": {"uri": short}},
                *({"prefix": {"uri": uri + PAGE_MARK}} for uri in short if PAGE_MARK not in uri),
            ]
            yield {"bool": {"filter": [{"bool": {"should": clauses, "minimum_should_match": 1}}]}}

    def find_target(self, hit: Mapping[str, Any], id_field: str = "_id") -> str:
        """Return which of them a hit belongs to: by its URI, that of its document, or its id; "" for none."""
        uri = _get_uri(hit)
        names = (uri, get_parent_uri(uri))
        id_ = hit["_id"] if id_field == "_id" else hit["_source"].get(id_field)
        return next((name for name in names if name in self._known), self._by_id.get(id_, ""))


def _get_uri(hit: Mapping[str, Any]) -> str:
    uri = hit["_source"].get("uri")
    return uri if isinstance(uri, str) else ""


class ForgetManager:
    """Removes images from all indices of an alias, and keeps its list."""

    def __init__(self, cluster: Cluster, alias: str) -> None:
        """Set the cluster and the search alias. No request is sent."""
        self.cluster, self.alias = cluster, alias
        self.images = ForgottenList(cluster, alias)

    def forget(self, uris: Iterable[str], *, same_content: bool = False, dry_run: bool = False) -> list[ForgottenImage]:
        """List images, and remove their documents from all indices; a URI of a document stands for its pages, too.

        The content of an image is listed, too, unless another image with the same content stays.

        Args:
            uris: URIs of the images.
            same_content: Whether images with the same content are forgotten, too.
            dry_run: Whether to look only. Otherwise no document with one of the URIs is left.

        Raises:
            IndexMismatch: If the alias isn't that of an index of stair-es. Nothing was changed.
            ClusterError: If the cluster fails, or another program keeps writing a document. A repeated call does the rest.
        """
        targets, indices = _Targets(uris), self._list_indices()
        found, copies = self._find_documents(indices, targets)
        if same_content:
            targets = _Targets([*targets.uris, *(uri for each in copies.values() for uri in each)])
            found, copies = self._find_documents(indices, targets)
        counts = {uri: Counter(hit["_index"] for hit in found[uri]) for uri in targets.uris}
        contents = {uri: {hit["_source"]["sha256"] for hit in found[uri] if "sha256" in hit["_source"]} for uri in targets.uris}
        if not dry_run:
            self.images.add({uri: set(map(make_content_id, contents[uri] - copies.keys())) for uri in targets.uris})
            counts = self._delete_everywhere(indices, targets)
        images = []
        for uri in targets.uris:
            others = sorted(set[str]().union(*(copies.get(each, ()) for each in contents[uri])))
            named = tuple(others[:MAX_NAMED_COPIES])
            images.append(ForgottenImage(uri=uri, documents=dict(counts[uri]), copies=named, copy_count=len(others)))
        return images

    def restore(self, uris: Iterable[str]) -> dict[str, bool]:
        """Take images and their contents off the list; return for each URI whether it was listed."""
        self._list_indices()
        ids = {uri: make_entry_id(uri) for uri in uris}
        found = self.images.remove(list(ids.values()))
        return {uri: id_ in found for uri, id_ in ids.items()}

    def repeat(self) -> dict[str, int]:
        """Remove the documents of all listed images, such as those of a restored snapshot; return their number by index."""
        counts = {}
        for index in self._list_indices():
            self.cluster.refresh(index)
            ensure_write_alias(self.cluster, index)
            counts[index] = purge_index(self.images, index)
        delete_orphan_token_indices(self.cluster, self.alias)
        for index in get_token_index_state(self.cluster, self.alias).indices.values():
            reconcile_token_index(self.cluster, self.alias, index)
        return counts

    def _list_indices(self) -> list[str]:
        """List the indices with images: the one that is searched, and unfinished and retired ones."""
        check_alias_name(self.alias)
        live = get_single_target(self.cluster, self.alias)
        params = {"expand_wildcards": "all", "filter_path": "*.mappings._meta"}
        found = self.cluster.call(self.cluster.client.indices.get, index=f"{live},{self.alias}-*", params=params)
        if not is_ingest_index(found.get(live, {})):
            raise IndexMismatch(
                f"index {live!r} (alias {self.alias!r}) was not made by stair-es: its documents are more than an image",
                f"Delete the document, or its token fields, by the program that wrote it: DELETE /{live}/_doc/ID",
                code="documents-of-another-program",
            )
        own = [name for name, index in found.items() if get_index_meta(index).get("alias") == self.alias]
        names = list(dict.fromkeys([live, *sorted(own)]))
        for name in names:
            check_index_format(name, found[name])
        return names

    def _find_documents(
        self, indices: Sequence[str], targets: _Targets
    ) -> tuple[dict[str, list[dict[str, Any]]], dict[str, set[str]]]:
        """Find the documents of each target, and the URIs of other images by the content that they share with one."""
        found: dict[str, list[dict[str, Any]]] = {uri: [] for uri in targets.uris}
        self.cluster.refresh(",".join(indices))
        for query in targets.build_queries("_id"):
            for hit in self._read_hits(indices, query):
                if target := targets.find_target(hit):
                    found[target].append(hit)
        hashes = {hit["_source"].get("sha256") for hits in found.values() for hit in hits} - {None}
        copies = defaultdict[str, set[str]](set)
        for part in batched(sorted(hashes), _BATCH_IDS):
            for hit in self._read_hits(indices, {"bool": {"filter": [{"terms": {"sha256": part}}]}}):
                if not targets.find_target(hit):
                    copies[hit["_source"]["sha256"]].add(_get_uri(hit))
        return found, dict(copies)

    def _read_hits(self, indices: Sequence[str], query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        body = {"query": query, "_source": ["uri", "sha256"]}
        for index in indices:
            for hits in paginate_hits(self.cluster, index, body, size=_PAGE_SIZE):
                yield from hits

    def _delete_everywhere(self, indices: Sequence[str], targets: _Targets) -> dict[str, Counter[str]]:
        """Delete from all indices, those created meanwhile, too; return the numbers of documents by URI and index."""
        counts: dict[str, Counter[str]] = {uri: Counter() for uri in targets.uris}
        done, missing = set[str](), list(indices)
        while missing:
            token_indices = get_token_index_state(self.cluster, self.alias).indices
            for index, id_field in [*((name, "_id") for name in missing), *((name, "image_id") for name in token_indices)]:
                find_target = partial(targets.find_target, id_field=id_field)
                try:
                    for query in targets.build_queries(id_field):
                        for target in self._delete_hits(index, query, find_target):
                            counts[target][index] += 1
                except ClusterError:
                    if self.cluster.call(self.cluster.client.indices.exists, index=index):
                        raise  # otherwise it was retired and deleted meanwhile
            done.update(missing)
            missing = [index for index in self._list_indices() if index not in done]
        return counts

    def _delete_hits(
        self, index: str, query: Mapping[str, Any], find_target: Callable[[Mapping[str, Any]], str]
    ) -> Iterator[str]:
        """Delete what a query finds until it finds nothing; yield the target of each document."""
        body = {"size": _PAGE_SIZE, "query": query, "_source": ["uri", "image_id"], "track_total_hits": False}
        writer, deleted, stalled = BulkWriter(cluster=self.cluster, index=index), set[str](), 0
        while True:
            self.cluster.refresh(index)
            hits = [hit for hit in self.cluster.search(index, body)["hits"]["hits"] if find_target(hit)]
            if not hits:
                return
            if not deleted:
                ensure_write_alias(self.cluster, index)
            new = [hit for hit in hits if hit["_id"] not in deleted]
            stalled = 0 if new else stalled + 1
            if stalled == _MAX_STALLED_ROUNDS:
                raise ClusterError(
                    f"another program keeps writing {len(hits):,} of the deleted documents to {index}",
                    "Wait until it has finished, and run the same command again.",
                    code="forgotten-images-written-again",
                )
            _delete_hits(writer, hits)
            deleted.update(hit["_id"] for hit in hits)
            yield from map(find_target, new)
