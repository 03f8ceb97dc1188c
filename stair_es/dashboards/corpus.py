"""The index that a dashboard is built for, as reported by the cluster. Read-only."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stair_es.cluster.connect import Connection, translated
from stair_es.cluster.identity import check_alias, has_colours, has_thumbnails, ours, refuse_words, words_of
from stair_es.cluster.swap import mappings_of
from stair_es.cluster.words_index import words_alias
from stair_es.errors import IndexMismatch, QueryError

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

Product = Literal["opensearch-dashboards", "kibana"]
TimeField = Literal["taken_at", "ingested_at"]
Interval = Literal["d", "M", "y"]

LABELS: dict[Product, str] = {"opensearch-dashboards": "OpenSearch Dashboards", "kibana": "Kibana"}
"""Product -> display name."""

_LONGEST_SLUG = 40
_DAY_S = 24 * 3600.0
_SPANS: tuple[tuple[float, Interval], ...] = ((120 * _DAY_S, "d"), (5 * 365 * _DAY_S, "M"))
"""Longest span between the first and the last image, and the bar width for it; years beyond. Never less than a day: the products
don't widen the bars, and an index that grows for years would have too many."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """An index of images, with what its dashboard depends on.

    Raises:
        UsageError: If the name is not a valid index name, on construction.
    """

    name: str
    """Alias of the index."""
    companion: bool = True
    """Whether there is a token index `<name>-words`, with one document per image and token."""
    companion_word: Literal["top_tokens", "token"] = "top_tokens"
    """Field of the tokens in the token index. `top_tokens` is also the name in the main index, so one filter reaches both."""
    time_field: TimeField = "ingested_at"
    """Field for `Words over time`."""
    interval: Interval = "M"
    """Width of the bars of `Words over time`."""
    captions: bool = False
    """Whether documents have a `caption`."""
    thumbnails: bool = True
    """Whether documents have a `thumbnail`."""
    colours: bool = True
    """Whether documents have `colours`, also in the token index."""

    def __post_init__(self) -> None:
        check_alias(self.name)  # patterns are rejected, too: the token index and the ids of the objects derive from the name

    @property
    def words_name(self) -> str:
        """Alias of the token index."""
        return words_alias(self.name)

    def id(self, kind: str) -> str:
        """Return the id of a saved object: stable, and different for every index."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.name)[:_LONGEST_SLUG].strip("-")
        digest = hashlib.sha256(self.name.encode()).hexdigest()[:8]  # two names can have the same slug
        return "-".join(part for part in ("stair", slug, digest, kind) if part)

    def title(self, text: str) -> str:
        """Return the title of a saved object; it names the index, since lists show the objects of all indices."""
        return f"{text} [{self.name}]"


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What was read from the cluster."""

    corpus: Corpus
    images: int
    remarks: tuple[str, ...] = ()
    """What the dashboard lacks, and how to add it."""


def look(client: OpenSearch, connection: Connection, name: str, time_field: TimeField | None = None) -> Looked:
    """Read what a dashboard needs to know of an index.

    Args:
        client: Client of the cluster.
        connection: Connection of that client.
        name: Alias of the index.
        time_field: Field for `Words over time`; None takes `taken_at` if most images have it, otherwise `ingested_at`.

    Returns:
        Specification of the dashboard, number of images, and remarks.

    Raises:
        UsageError: If the name is not a valid index name.
        QueryError: If there is no such index.
        IndexMismatch: If stair-es didn't write the index.
        ClusterError: If a request fails.
    """
    plain = Corpus(name=name)  # rejects patterns
    found = mappings_of(client, connection, name)
    for index, about in found.items():
        refuse_words(index, about)
    if strange := [index for index, about in found.items() if not ours(about)]:
        raise IndexMismatch(
            f"index {strange[0]!r} was not written by stair-es: no `_meta.stair_es`",
            "Choose another one with --index / STAIR_ES_INDEX.",
        )
    if not found:
        raise QueryError(
            f"there is no index or alias {name!r} at {connection.safe_url}",
            f"Write one with: stair-es ingest FOLDER --index {name} --words-index",
        )
    words = _fields(
        {index: about for index, about in mappings_of(client, connection, plain.words_name).items() if words_of(about)}
    )
    told = _told(client, connection, name, time_field)
    corpus = Corpus(
        name=name,
        companion="token" in words,
        companion_word="top_tokens" if "top_tokens" in words else "token",
        time_field=told.time_field,
        interval=told.interval,
        captions=told.captions,
        thumbnails=any(map(has_thumbnails, found.values())),
        colours=all(map(has_colours, found.values())) and (not words or "colours" in words),
    )
    return Looked(corpus=corpus, images=told.images, remarks=tuple(_remarks(corpus, told.images)))


def _fields(found: Mapping[str, Any]) -> set[str]:
    return {field for index in found.values() for field in index["mappings"].get("properties", {})}


@dataclass(frozen=True)
class _Told:
    images: int
    time_field: TimeField
    interval: Interval
    captions: bool


def _told(client: OpenSearch, connection: Connection, name: str, asked: TimeField | None) -> _Told:
    aggs: dict[str, Any] = {field: {"stats": {"field": field}} for field in ("taken_at", "ingested_at")}
    aggs["captions"] = {"filter": {"exists": {"field": "caption"}}}
    with translated(connection):
        answer = client.search(index=name, body={"size": 0, "track_total_hits": True, "aggs": aggs})
    images, found = int(answer["hits"]["total"]["value"]), answer["aggregations"]
    field = asked or ("taken_at" if found["taken_at"]["count"] * 2 > images else "ingested_at")
    low, high = found[field]["min"], found[field]["max"]
    step = "M" if low is None else interval((high - low) / 1000)
    return _Told(images, field, step, found["captions"]["doc_count"] > 0)


def interval(span_s: float) -> Interval:
    """Return the bar width for images that span `span_s` seconds."""
    return next((step for longest, step in _SPANS if span_s <= longest), "y")


def _remarks(corpus: Corpus, images: int) -> list[str]:
    said = list[str]()
    if images == 0:
        said.append(f"{corpus.name} is empty, so the panels will be empty")
    if not corpus.companion:
        said.append(
            f"no panels about weights: there is no {corpus.words_name} "
            f"(stair-es ingest ... --index {corpus.name} --words-index creates it)"
        )
    elif corpus.companion_word == "token":
        said.append(f"{corpus.words_name} has no field `top_tokens`: a word chosen as a filter empties the panels about weights")
    return said
