"""Read and compare the image index and its token index, page by page. The token index follows the image index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stair_es.cluster.connect import Connection
from stair_es.cluster.pages import answer_of, by_id, count_of, pages
from stair_es.cluster.words_documents import CARRIED, STAMPED, Write, stamp
from stair_es.errors import IndexMismatch

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

PAGE = 1000
"""Images compared at once: within the bucket limit of any cluster."""
_MOST_HITS = 10_000
"""Default of `index.max_result_window`."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Requests that both readers need."""

    client: OpenSearch
    connection: Connection
    index: str

    def search(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Search all shards, and return the response.

        Raises:
            ClusterError: If the request fails, or shards of the index are unavailable.
        """
        return answer_of(self.client, self.connection, self.index, body)

    def count(self, query: Mapping[str, Any]) -> int:
        """Count the documents that match a query."""
        return count_of(self.client, self.connection, self.index, query)

    def get(self, ids: Sequence[str], fields: Sequence[str]) -> list[dict[str, Any]]:
        """Get the documents that exist among `ids`, with some of their fields, in real time."""
        return by_id(self.client, self.connection, self.index, ids, fields)


@dataclass(frozen=True)
class Image:
    """The fields of an image's document that its token documents need."""

    source: Mapping[str, Any]
    write: Write

    @property
    def stamp(self) -> str:
        """Source version of the token documents."""
        return stamp(self.source, self.write)


def check_mapping(properties: Mapping[str, Any], where: str) -> None:
    """Check that images with these fields can be read page by page.

    Raises:
        IndexMismatch: If they can't be sorted as ingest does.
    """
    without = [name for name in ("uri", "sha256") if not _in_columns(properties.get(name, {}))]
    if without:
        raise IndexMismatch(
            f"{where} can't have a words index: no doc values for {', '.join(without)}",
            "Leave `doc_values` out of the file of --mapping, or go without --words-index.",
        )


@dataclass(frozen=True, kw_only=True)
class MainSide:
    """Reads the image index."""

    asked: Asked
    properties: Mapping[str, Any]
    """Properties of its mapping."""

    @property
    def with_words(self) -> dict[str, Any]:
        """Query for images with tokens; if `top_tokens` can't be searched, for all images."""
        known = self.properties.get("top_tokens", {})
        words = known.get("type") == "keyword" and (known.get("index", True) or known.get("doc_values", True))
        fields = ["uri", "top_tokens"] if words else ["uri"]
        return {"bool": {"filter": [{"exists": {"field": name}} for name in fields]}}

    def pages(self) -> Iterator[dict[str, str]]:
        """Iterate over id -> source version of the images with tokens, in the order of their URIs; see `scan_documents`."""
        columns = [name for name in STAMPED if _in_columns(self.properties.get(name, {}))]
        others = [name for name in STAMPED if name not in columns]
        body = {
            "query": self.with_words,
            "_source": others or False,
            "docvalue_fields": columns,
            "seq_no_primary_term": True,
        }
        for hits in pages(self.asked.client, self.asked.connection, self.asked.index, body, size=PAGE):
            yield {hit["_id"]: stamp({**hit.get("_source", {}), **hit.get("fields", {})}, Write.of(hit)) for hit in hits}

    def having_words(self, ids: Sequence[str]) -> set[str]:
        """Filter the ids of images that exist and have tokens."""
        query = {"bool": {"filter": [{"ids": {"values": list(ids)}}, self.with_words]}}
        body = {"size": len(ids), "query": query, "_source": False, "track_total_hits": False}
        return {hit["_id"] for hit in self.asked.search(body)["hits"]["hits"]}

    def images(self, ids: Sequence[str]) -> dict[str, Image]:
        """Get the images that exist among `ids`, in real time."""
        docs = self.asked.get(ids, ("tokens", "top_tokens", *STAMPED, *CARRIED))
        return {doc["_id"]: Image(doc.get("_source", {}), Write.of(doc)) for doc in docs}

    def writes(self, ids: Sequence[str]) -> dict[str, Write]:
        """Get the stored version of each document, in real time."""
        return {doc["_id"]: Write.of(doc) for doc in self.asked.get(ids, ())}


@dataclass(frozen=True, kw_only=True)
class WordsSide:
    """Reads the token index, as of its last refresh."""

    asked: Asked

    def found(self, ids: Sequence[str]) -> dict[str, Found]:
        """Summarize the token documents of each of these images."""
        if not ids:
            return {}
        aggs = {
            "stamps": {"terms": {"field": "stamp", "size": 2, "execution_hint": "map"}},
            "words": {"max": {"field": "words"}},
        }
        images = {"terms": {"field": "image_id", "size": len(ids), "execution_hint": "map"}, "aggs": aggs}
        body = {"size": 0, "query": _of(ids), "aggs": {"images": images}}
        buckets = self.asked.search(body)["aggregations"]["images"]["buckets"]
        return {bucket["key"]: _found(bucket) for bucket in buckets}

    def images(self) -> Iterator[list[str]]:
        """Iterate over the ids of all images that have token documents, page by page."""
        composite: dict[str, Any] = {"size": PAGE, "sources": [{"id": {"terms": {"field": "image_id"}}}]}
        while True:
            answer = self.asked.search({"size": 0, "aggs": {"images": {"composite": composite}}})["aggregations"]["images"]
            ids = [bucket["key"]["id"] for bucket in answer["buckets"]]
            if ids:
                yield ids
            if len(ids) < PAGE:
                return
            composite = {**composite, "after": answer["after_key"]}

    def documents(self, ids: Sequence[str]) -> dict[str, set[str]]:
        """List the ids of the token documents by the id of the image."""
        body = {
            "size": _MOST_HITS,
            "query": _of(ids),
            "_source": False,
            "docvalue_fields": ["image_id"],
            "track_total_hits": False,
        }
        found: dict[str, set[str]] = {}
        for hit in self.asked.search(body)["hits"]["hits"]:
            found.setdefault(hit["fields"]["image_id"][0], set()).add(hit["_id"])
        return found

    def document_count(self) -> int:
        """Count the token documents."""
        return self.asked.count({"match_all": {}})

    def image_count(self) -> int:
        """Count the images that have token documents."""
        return self.asked.count({"term": {"rank": 1}})


def _of(ids: Sequence[str]) -> dict[str, Any]:
    return {"bool": {"filter": [{"terms": {"image_id": list(ids)}}]}}


def _found(bucket: Mapping[str, Any]) -> Found:
    stamps, words = bucket["stamps"], bucket["words"]["value"]
    whole = len(stamps["buckets"]) == 1 and stamps["buckets"][0]["doc_count"] == bucket["doc_count"]
    return Found(
        documents=bucket["doc_count"],
        words=None if words is None else int(words),
        stamp=stamps["buckets"][0]["key"] if whole else None,
    )


def _in_columns(field: Mapping[str, Any]) -> bool:
    return field.get("type") == "keyword" and field.get("doc_values", True) is not False


@dataclass(frozen=True, kw_only=True)
class Found:
    """The token documents of one image."""

    documents: int
    words: int | None
    """Number of tokens of the image, as stored in these documents."""
    stamp: str | None
    """None if there are several, or none: then some documents are stale."""

    def is_up_to_date(self, stamp: str, top_words: int) -> bool:
        """Return whether these are all the documents for an image with this source version."""
        return self.stamp == stamp and self.words is not None and self.documents == min(top_words, self.words)


def outdated(wanted: Mapping[str, str], found: Mapping[str, Found], top_words: int) -> list[str]:
    """Find the images whose token documents are missing, incomplete or stale.

    Args:
        wanted: Id -> source version of images with tokens in the image index.
        found: Summaries of the token index by id.
        top_words: Maximum number of documents per image.

    Returns:
        Ids of images.
    """
    return [id_ for id_, stamp in wanted.items() if id_ not in found or not found[id_].is_up_to_date(stamp, top_words)]


def superfluous(found: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Find the images with token documents that the image index doesn't have, or has without tokens.

    Args:
        found: Ids of images in the token index.
        wanted: Ids of images with tokens in the image index.

    Returns:
        Ids of images.
    """
    there = set(wanted)
    return [id_ for id_ in found if id_ not in there]
