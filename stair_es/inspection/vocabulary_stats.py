"""Token statistics of a whole index, from all of its documents or a sample, and the vocabulary of its model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from stair_es.cluster.documents.read import count_matches, paginate_hits
from stair_es.config.settings import Settings
from stair_es.errors import ModelNotFetched, StairError, UnknownModel
from stair_es.inspection.token_stats import StatsAccumulator, TokenStats
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.model.vocabularies.wordpiece import load_wordpiece_vocabulary
from stair_es.search.dsl.pagination import SORT_ORDER, build_random_query
from stair_es.search.dsl.select import TOKENS_FIELD
from stair_es.token_policy import TokenPolicy
from stair_es.types import ResizeMode

if TYPE_CHECKING:
    from stair_es.cluster.client.cluster import Cluster
    from stair_es.types import ProgressCallback

PAGE = 1000
"""Documents per request; some models give an image hundreds of tokens."""
_WITH_URI = {"exists": {"field": "uri"}}
_URI_POSITION = -3
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
        """Number of documents with a URI minus the number of read documents. 0 if the index didn't change during the scan."""
        expected = self.documents - self.without_uri
        return (min(expected, self.sample.size) if self.sample else expected) - self.images


def collect_vocabulary_stats(
    cluster: Cluster,
    index: str,
    *,
    field: str = TOKENS_FIELD,
    sample: DocumentSample | None = None,
    progress: ProgressCallback = lambda done, total: None,
) -> VocabularyStats:
    """Collect the statistics of all tokens, or of all labels (`field`), over the documents that have a URI.

    Sees what was written before the last refresh, and changes nothing: it sends `_search` and `_count` requests. `progress`
    gets the number of documents read so far, and the total.
    """
    documents = count_matches(cluster, index, {"match_all": {}})
    with_uri = count_matches(cluster, index, _WITH_URI)
    total = min(with_uri, sample.size) if sample else with_uri
    all_pages = paginate_hits(cluster, index, build_tokens_query(_WITH_URI, field), size=PAGE, sort=SORT_ORDER[1:])
    pages = _scan_sample(cluster, index, sample, field) if sample else all_pages
    accumulator = StatsAccumulator()
    for hits in pages:
        for hit in hits:
            accumulator.add_image((hit.get("_source") or {}).get(field), hit["sort"][_URI_POSITION])
        progress(accumulator.images, total)
    return VocabularyStats(
        documents=documents,
        without_uri=documents - with_uri,
        images=accumulator.images,
        empty=accumulator.empty,
        mean_tokens=accumulator.occurrences / accumulator.images if accumulator.images else 0.0,
        token_stats=accumulator.compute_stats(),
        sample=sample,
    )


def build_tokens_query(query: Mapping[str, Any], field: str = TOKENS_FIELD) -> dict[str, Any]:
    """Build the search request for a page: only the tokens of a document; its URI comes with the sort values."""
    return {"query": dict(query), "_source": [field]}


def _scan_sample(cluster: Cluster, index: str, sample: DocumentSample, field: str) -> Iterator[list[dict[str, Any]]]:
    """Iterate in random order: a prefix of it is a sample without replacement."""
    query = build_random_query({"bool": {"filter": [_WITH_URI]}}, seed=sample.seed, field="_seq_no")
    remaining = sample.size
    for hits in paginate_hits(cluster, index, build_tokens_query(query, field), size=min(PAGE, sample.size), sort=SORT_ORDER):
        yield list(islice(hits, remaining))
        remaining -= len(hits)
        if remaining <= 0:
            return


BERT = "BERT, uncased"
_SPECIAL = re.compile(r"\[.+\]")
"""`[CLS]`, `[unused7]`: no model gives them to an image."""


@dataclass(frozen=True, kw_only=True)
class ModelVocabulary:
    """The vocabulary of a model, or a replacement for it."""

    tokens: frozenset[str]
    source: str
    """Id of the model, or `BERT`."""
    reason: str = ""
    """Why it is BERT's vocabulary."""


def load_model_vocabulary(
    name: str, *, required: bool = False, fit: ResizeMode | None = None, settings: Settings | None = None
) -> ModelVocabulary:
    """Load the vocabulary of a model, or BERT's if the model doesn't expose one or isn't on this machine.

    No network is run, and none is downloaded unless `required`.

    Args:
        name: Name, as for `--model`.
        required: Whether the user named the model: then it is downloaded if necessary, and a failure is an error.
        fit: Fit that the index was written with; it is part of the model's id.
        settings: Data folder and trusted models; None for those of the environment.
    """
    try:
        spec = ModelSpec(name=name, fit=fit, settings=settings)
        encoder = registry.load_encoder(spec) if required else registry.load_local_encoder(spec)
        tokens = encoder.tokens
    except StairError as error:
        if required:
            raise
        is_missing = isinstance(error, (ModelNotFetched, UnknownModel))
        return _load_bert_vocabulary(f"the model {name} is not on this machine" if is_missing else error.message)
    if not tokens:
        return _load_bert_vocabulary(f"the model {name} does not expose its vocabulary")
    return ModelVocabulary(tokens=_remove_special_tokens(tokens), source=encoder.model_id)


def find_unused_tokens(vocabulary: ModelVocabulary, used: Iterable[str], policy: TokenPolicy | None) -> tuple[str, ...]:
    """Find the tokens of a vocabulary that no image has, sorted, without those that a token policy removed."""
    removed = {*policy.replacements, *policy.mute} if policy else set[str]()
    return tuple(sorted(vocabulary.tokens.difference(used, removed)))


def _load_bert_vocabulary(reason: str) -> ModelVocabulary:
    return ModelVocabulary(tokens=_remove_special_tokens(load_wordpiece_vocabulary().tokens), source=BERT, reason=reason)


def _remove_special_tokens(tokens: Iterable[str]) -> frozenset[str]:
    return frozenset(token for token in tokens if not _SPECIAL.fullmatch(token))
