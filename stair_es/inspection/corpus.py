"""Token statistics of a whole index, from all of its documents or a sample."""

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
"""Documents per request; some models give an image hundreds of tokens."""
_WITH_URI = {"exists": {"field": "uri"}}
_URI = -3
"""Position of the URI in the sort values, with or without a score."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A random sample of the documents; the same seed gives the same one as long as the index doesn't change."""

    size: int
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Token statistics of an index."""

    documents: int
    """Documents in the index."""
    without_uri: int
    """Documents without a URI, or with one of 8 KiB or more: they are not read."""
    images: int
    """Documents that were read."""
    empty: int
    """Documents without tokens among those that were read."""
    words_an_image: float
    figures: tuple[WordFigures, ...]
    """Statistics per token, the most frequent token first."""
    sample: Sample | None

    @property
    def missed(self) -> int:
        """How many fewer documents were read than have a URI; negative if more. 0 if the index didn't change during the scan."""
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
    """Collect the statistics of all tokens, over the documents that have a URI.

    Sees what was written before the last refresh, and changes nothing: it sends `_search` and `_count` requests.

    Args:
        client: Client of the cluster.
        connection: Connection of the client.
        index: An index or alias.
        sample: Read a random sample of the documents only.
        progress: Called with the number of documents read so far, and the total.

    Raises:
        ClusterError: If a request failed, or returned partial results.
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
    """Build the search request for a page: only the tokens of a document; its URI comes with the sort values."""
    return {"query": dict(query), "_source": ["tokens"]}


def _all(client: OpenSearch, connection: Connection, index: str) -> Iterator[list[dict[str, Any]]]:
    return pages(client, connection, index, body(_WITH_URI), size=PAGE, sort=ORDER[1:])


def _sampled(client: OpenSearch, connection: Connection, index: str, sample: Sample) -> Iterator[list[dict[str, Any]]]:
    """Iterate in random order: a prefix of it is a sample without replacement."""
    drawn = {"seed": sample.seed, "field": "_seq_no"}
    query = {"function_score": {"query": {"bool": {"filter": [_WITH_URI]}}, "random_score": drawn, "boost_mode": "replace"}}
    left = sample.size
    for hits in pages(client, connection, index, body(query), size=min(PAGE, sample.size), sort=ORDER):
        yield list(islice(hits, left))
        left -= len(hits)
        if left <= 0:
            return
