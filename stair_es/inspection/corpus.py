"""The words of a whole index, found out by reading all of its documents, or a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from stair_es.cluster.pages import count_of, pages
from stair_es.inspection.figures import Tally, WordFigures
from stair_es.search.cursor import ORDER

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from stair_es.cluster.connect import Connection

PAGE = 1000
"""Documents of a request: some models give an image hundreds of words."""
_WITH_URI = {"exists": {"field": "uri"}}
_URI = -3
"""Where the URI is among the sort values, with a score or without."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Some documents in place of all, the same again with the same seed as long as the index doesn't change."""

    size: int
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What was read, and what wasn't."""

    documents: int
    """In the index."""
    without_uri: int
    """Of those, the ones that have no URI, or one of 8 KiB and more: they aren't read."""
    images: int
    """That were read."""
    empty: int
    """Of those, the ones without a word."""
    words_an_image: float
    figures: tuple[WordFigures, ...]
    """Of each word, the one that most images have first."""
    sample: Sample | None

    @property
    def missed(self) -> int:
        """How many fewer documents were read than there are with a URI; below 0 if more: 0 where nothing changes meanwhile."""
        wanted = self.documents - self.without_uri
        return (min(wanted, self.sample.size) if self.sample else wanted) - self.images


def corpus(
    client: OpenSearch,
    connection: Connection,
    index: str,
    *,
    sample: Sample | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Corpus:
    """The figures of all words of all documents that have a URI.

    Sees what was written before the last refresh, and changes nothing: it sends `_search` and `_count`.

    Args:
        client: Of the cluster.
        connection: Of that client.
        index: An index or alias.
        sample: Read that many documents only, drawn at random.
        progress: Is called with the number of documents read so far, and of all.

    Raises:
        ClusterError: The cluster failed a request, or could answer for a part of the index only.
    """
    documents = count_of(client, connection, index, {"match_all": {}})
    with_uri = count_of(client, connection, index, _WITH_URI)
    wanted = min(with_uri, sample.size) if sample else with_uri
    found = _sampled(client, connection, index, sample) if sample else _all(client, connection, index)
    tally = Tally()
    for hits in found:
        for hit in hits:
            tally.add((hit.get("_source") or {}).get("tokens"), hit["sort"][_URI])
        progress(tally.images, wanted)
    return Corpus(
        documents=documents,
        without_uri=documents - with_uri,
        images=tally.images,
        empty=tally.empty,
        words_an_image=tally.occurrences / tally.images if tally.images else 0.0,
        figures=tally.figures(),
        sample=sample,
    )


def body(query: Mapping[str, Any]) -> dict[str, Any]:
    """The search for a page: of a document its words alone, the URI comes with the order."""
    return {"query": dict(query), "_source": ["tokens"]}


def _all(client: OpenSearch, connection: Connection, index: str) -> Iterator[list[dict[str, Any]]]:
    return pages(client, connection, index, body(_WITH_URI), size=PAGE, sort=ORDER[1:])


def _sampled(client: OpenSearch, connection: Connection, index: str, sample: Sample) -> Iterator[list[dict[str, Any]]]:
    """In the order of a random number for each document: its beginning is a sample without replacement."""
    drawn = {"seed": sample.seed, "field": "_seq_no"}
    query = {"function_score": {"query": {"bool": {"filter": [_WITH_URI]}}, "random_score": drawn, "boost_mode": "replace"}}
    left = sample.size
    for hits in pages(client, connection, index, body(query), size=min(PAGE, sample.size), sort=ORDER):
        yield list(islice(hits, left))
        left -= len(hits)
        if left <= 0:
            return
