"""Search an index: `QueryInputs` -> `SearchQuery` -> `SearchRequest` -> `SearchResult`.

Example::

    from stair_es.search import ImageSearch

    with ImageSearch("photos", url="http://127.0.0.1:9200") as photos:
        for hit in photos.search("beach -people").hits:
            print(hit.score, hit.uri, [each.token for each in hit.contributions])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stair_es.search.diagnose import RankExplanation
    from stair_es.search.dsl.query_inputs import QueryInputs
    from stair_es.search.dsl.select import build_sparse_query
    from stair_es.search.dsl.understanding import SearchFields
    from stair_es.search.image_search import AsyncImageSearch, ImageSearch
    from stair_es.search.options import SearchOptions
    from stair_es.search.query import SearchQuery
    from stair_es.search.query_encoder import build_search_query
    from stair_es.search.request import SearchRequest, build_search_request
    from stair_es.search.results import Hit, SearchResult, TokenContribution
    from stair_es.search.searcher import Searcher
    from stair_es.types import QueryType

__all__ = [
    "AsyncImageSearch",
    "Hit",
    "ImageSearch",
    "QueryInputs",
    "QueryType",
    "RankExplanation",
    "SearchFields",
    "SearchOptions",
    "SearchQuery",
    "SearchRequest",
    "SearchResult",
    "Searcher",
    "TokenContribution",
    "build_search_query",
    "build_search_request",
    "build_sparse_query",
]
_HOMES = {
    "diagnose": ("RankExplanation",),
    "dsl.select": ("QueryType", "build_sparse_query"),
    "dsl.understanding": ("SearchFields",),
    "image_search": ("AsyncImageSearch", "ImageSearch"),
    "options": ("SearchOptions",),
    "query": ("SearchQuery",),
    "dsl.query_inputs": ("QueryInputs",),
    "query_encoder": ("build_search_query",),
    "request": ("SearchRequest", "build_search_request"),
    "results": ("Hit", "SearchResult", "TokenContribution"),
    "searcher": ("Searcher",),
}
"""Module -> its names here."""


def __getattr__(name: str) -> object:
    """Import a module when one of its names is first requested: builders load no model, and no submodule loads all others."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
