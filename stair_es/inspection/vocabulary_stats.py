"""Token statistics of a whole index, from all of its documents or a sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from stair_es.cluster.documents.read import count_matches, paginate_hits
from stair_es.inspection.token_stats import StatsAccumulator, TokenStats
from stair_es.search.dsl.pagination import SORT_ORDER

if TYPE_CHECKING:
    from stair_es.cluster.client.cluster import Cluster
    from stair_es.types import ProgressCallback

PAGE = 1000
"""Documents per request; some models give an image hundreds of tokens."""
_WITH_URI = {"exists": {"field": "uri"}}
_URI = -3
"""Position of the URI in the sort values, with or without a score."""


@dataclass(frozen=True, kw_only=True)
class DocumentSample:
    """A random sample of the documents; the same seed gives the same one as long as the index doesn't change."""

    size: int
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class VocabularyStats:
    """Token statistics of an index."""

    documents: int
    """Documents in the index."""
    without_uri: int
    """Documents without a URI, or with one of 8 KiB or more: they are not read."""
    images: int
    """Documents that were read."""
    empty: int
    """Documents without tokens among those that were read."""
    mean_tokens: float
    token_stats: tuple[TokenStats, ...]
    """Statistics per token, the most frequent token first."""
    sample: DocumentSample | None

    @property
    def missed_count(self) -> int:
        """How many fewer documents were read than have a URI; negative if more. 0 if the index didn't change during the scan."""
        wanted = self.documents - self.without_uri
        return (min(wanted, self.sample.size) if self.sample else wanted) - self.images


def collect_vocabulary_stats(
    cluster: Cluster,
    index: str,
    *,
    sample: DocumentSample | None = None,
    progress: ProgressCallback = lambda done, total: None,
) -> VocabularyStats:
    """Collect the statistics of all tokens, over the documents that have a URI.

    Sees what was written before the last refresh, and changes nothing: it sends `_search` and `_count` requests.

    Args:
        cluster: The cluster.
        index: An index or alias.
        sample: Read a random sample of the documents only.
        progress: Called with the number of documents read so far, and the total.

    Raises:
        ClusterError: If a request failed, or returned partial results.
    """
    documents = count_matches(cluster, index, {"match_all": {}})
    with_uri = count_matches(cluster, index, _WITH_URI)
    wanted = min(with_uri, sample.size) if sample else with_uri
    found = _scan_sample(cluster, index, sample) if sample else _scan_all(cluster, index)
    tally = StatsAccumulator()
    for hits in found:
        for hit in hits:
            tally.add_image((hit.get("_source") or {}).get("tokens"), hit["sort"][_URI])
        progress(tally.images, wanted)
    return VocabularyStats(
        documents=documents,
        without_uri=documents - with_uri,
        images=tally.images,
        empty=tally.empty,
        mean_tokens=tally.occurrences / tally.images if tally.images else 0.0,
        token_stats=tally.compute_stats(),
        sample=sample,
    )


def build_tokens_query(query: Mapping[str, Any]) -> dict[str, Any]:
    """Build the search request for a page: only the tokens of a document; its URI comes with the sort values."""
    return {"query": dict(query), "_source": ["tokens"]}


def _scan_all(cluster: Cluster, index: str) -> Iterator[list[dict[str, Any]]]:
    return paginate_hits(cluster, index, build_tokens_query(_WITH_URI), size=PAGE, sort=SORT_ORDER[1:])


def _scan_sample(cluster: Cluster, index: str, sample: DocumentSample) -> Iterator[list[dict[str, Any]]]:
    """Iterate in random order: a prefix of it is a sample without replacement."""
    drawn = {"seed": sample.seed, "field": "_seq_no"}
    query = {"function_score": {"query": {"bool": {"filter": [_WITH_URI]}}, "random_score": drawn, "boost_mode": "replace"}}
    left = sample.size
    for hits in paginate_hits(cluster, index, build_tokens_query(query), size=min(PAGE, sample.size), sort=SORT_ORDER):
        yield list(islice(hits, left))
        left -= len(hits)
        if left <= 0:
            return
