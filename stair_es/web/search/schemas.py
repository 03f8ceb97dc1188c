"""Parse the body of a search request: untrusted JSON -> values of checked type and size. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, get_args

import orjson
from msgspec import Meta, Struct
from msgspec.structs import replace

from stair_es.web.request_body import parse_struct
from stair_es.web.search.conditions import CONDITION_EXAMPLE, MAX_CONDITIONS, Condition

SearchMethod: TypeAlias = Literal["stair", "bag", "bm25"]
SEARCH_METHODS: tuple[SearchMethod, ...] = get_args(SearchMethod)

MAX_TEXT_CHARS = 2000
MAX_TOKEN_CHARS = 512
MAX_ID_CHARS = 2048
MAX_LIST_ITEMS = 64
MAX_VECTOR_TOKENS = 4096
MAX_K = 200
MAX_FACTOR = 1e6
DEFAULT_K = 24

_Text = Annotated[str, Meta(max_length=MAX_TEXT_CHARS)]
_Token = Annotated[str, Meta(max_length=MAX_TOKEN_CHARS)]
_Tokens = Annotated[tuple[_Token, ...], Meta(max_length=MAX_LIST_ITEMS)]
_Weights = Annotated[dict[_Token, Annotated[float, Meta(ge=0)]], Meta(max_length=MAX_VECTOR_TOKENS)]
_Factors = Annotated[dict[_Token, Annotated[float, Meta(ge=0, le=MAX_FACTOR)]], Meta(max_length=MAX_VECTOR_TOKENS)]

_REMEDIES = {
    "": 'Send an object, such as {"text": "red car"}.',
    "filters": CONDITION_EXAMPLE,
    "k": "Use `after` for further pages.",
    "after": "Use `after` of the previous page.",
    "method": f"Available: {', '.join(SEARCH_METHODS)}.",
}


class SearchParams(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of a search on the page."""

    text: _Text = ""
    """A query string: `beach -people +dog^2`."""
    similar_to: Annotated[str, Meta(max_length=MAX_ID_CHARS)] = ""
    """Id of a document whose tokens are added to the query."""
    vector: _Weights = {}
    """Tokens with weights, such as those of a dropped image."""
    factors: _Factors = {}
    """Token -> factor of its weight; for a token that the query lacks, its weight."""
    require: _Tokens = ()
    exclude: _Tokens = ()
    filters: Annotated[tuple[Condition, ...], Meta(max_length=MAX_CONDITIONS)] = ()
    """Conditions on fields, all of which an image must meet."""
    filter: _Text = ""
    """A query string."""
    k: Annotated[int, Meta(ge=1, le=MAX_K)] = DEFAULT_K
    after: tuple[Any, ...] | None = None
    """The cursor of a page. Its values are checked where they are used."""
    method: SearchMethod = "stair"

    @property
    def is_browsing(self) -> bool:
        """Whether there is nothing to rank by, so that the newest images are wanted."""
        return not (self.text.strip() or self.similar_to or self.vector or self.factors)


def parse_search_params(body: bytes) -> SearchParams:
    """Parse the body of a search request.

    Raises:
        RequestRejected: If it is not JSON, has an unknown field, or a value of another type or size.
    """
    params = parse_struct(body, SearchParams, _REMEDIES, orjson.loads, 400)
    return replace(
        params,
        vector={token: weight for token, weight in params.vector.items() if weight > 0},
        require=tuple(dict.fromkeys(params.require)),
        exclude=tuple(dict.fromkeys(params.exclude)),
    )
