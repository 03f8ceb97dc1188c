"""What both sides say of images, page by page: the main index, which rules, and the words index, which follows."""

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
"""Images compared at once: few enough for the buckets that any cluster allows."""
_MOST_HITS = 10_000
"""`index.max_result_window`, unless somebody changed it."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The requests that both sides need."""

    client: OpenSearch
    connection: Connection
    index: str

    def search(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of all shards.

        Raises:
            ClusterError: The cluster failed the request, or could answer for a part of the index only.
        """
        return answer_of(self.client, self.connection, self.index, body)

    def count(self, query: Mapping[str, Any]) -> int:
        """How many documents a query finds."""
        return count_of(self.client, self.connection, self.index, query)

    def get(self, ids: Sequence[str], fields: Sequence[str]) -> list[dict[str, Any]]:
        """The documents that are there, with some of their fields, in real time."""
        return by_id(self.client, self.connection, self.index, ids, fields)


@dataclass(frozen=True)
class Image:
    """An image's document, as far as its words need it."""

    source: Mapping[str, Any]
    write: Write

    @property
    def stamp(self) -> str:
        """Of the document that these words are of."""
        return stamp(self.source, self.write)


def check_mapping(properties: Mapping[str, Any], where: str) -> None:
    """Nothing, if images with these fields can be read page by page.

    Raises:
        IndexMismatch: They can't be sorted by what ingest sorts by.
    """
    without = [name for name in ("uri", "sha256") if not _in_columns(properties.get(name, {}))]
    if without:
        raise IndexMismatch(
            f"{where} can't have a words index: no doc values for {', '.join(without)}",
            "Leave `doc_values` out of the file of --mapping, or go without --words-index.",
        )


@dataclass(frozen=True, kw_only=True)
class MainSide:
    """The index of the images."""

    asked: Asked
    properties: Mapping[str, Any]
    """Of its mapping."""

    @property
    def with_words(self) -> dict[str, Any]:
        """The query for images that have words; where `top_tokens` can't be searched, for all of them."""
        known = self.properties.get("top_tokens", {})
        words = known.get("type") == "keyword" and (known.get("index", True) or known.get("doc_values", True))
        fields = ["uri", "top_tokens"] if words else ["uri"]
        return {"bool": {"filter": [{"exists": {"field": name}} for name in fields]}}

    def pages(self) -> Iterator[dict[str, str]]:
        """Id -> stamp of the images with words, in the order of their URIs; see `ledger.entries`."""
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
        """Those among `ids` that are there and have words."""
        query = {"bool": {"filter": [{"ids": {"values": list(ids)}}, self.with_words]}}
        body = {"size": len(ids), "query": query, "_source": False, "track_total_hits": False}
        return {hit["_id"] for hit in self.asked.search(body)["hits"]["hits"]}

    def images(self, ids: Sequence[str]) -> dict[str, Image]:
        """Those among `ids` that are there, in real time."""
        docs = self.asked.get(ids, ("tokens", "top_tokens", *STAMPED, *CARRIED))
        return {doc["_id"]: Image(doc.get("_source", {}), Write.of(doc)) for doc in docs}

    def writes(self, ids: Sequence[str]) -> dict[str, Write]:
        """Which write of each is stored, in real time."""
        return {doc["_id"]: Write.of(doc) for doc in self.asked.get(ids, ())}


@dataclass(frozen=True, kw_only=True)
class WordsSide:
    """The words index, as it was at its last refresh."""

    asked: Asked

    def found(self, ids: Sequence[str]) -> dict[str, Found]:
        """What it has of these images."""
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
        """The ids of all images that it has words of, page by page."""
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
        """Id of an image -> the `_id`s of its words."""
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
        """How many words it has."""
        return self.asked.count({"match_all": {}})

    def image_count(self) -> int:
        """How many images they are of."""
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
    """What a words index has of one image."""

    documents: int
    words: int | None
    """How many words the image has in all, as these documents say."""
    stamp: str | None
    """None where they have several, or none: then some are old."""

    def is_up_to_date(self, stamp: str, top_words: int) -> bool:
        """Whether these are all documents of the image whose document has this stamp now."""
        return self.stamp == stamp and self.words is not None and self.documents == min(top_words, self.words)


def outdated(wanted: Mapping[str, str], found: Mapping[str, Found], top_words: int) -> list[str]:
    """Ids of the images whose words are missing, incomplete or old.

    Args:
        wanted: Id -> stamp of images in the main index that have words.
        found: What the words index has of them.
        top_words: How many documents an image has at most.
    """
    return [id_ for id_, stamp in wanted.items() if id_ not in found or not found[id_].is_up_to_date(stamp, top_words)]


def superfluous(found: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Ids of images that the words index has and the main index hasn't, or hasn't any words of."""
    there = set(wanted)
    return [id_ for id_ in found if id_ not in there]
