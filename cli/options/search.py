"""Search options: the query, conditions on images, and how the cluster is searched."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stair_es.errors import UsageError

from ..output.notices import note_plain_operators
from . import shared
from .decorator import OptionGroup
from .encoder import build_reading, check_image_arguments, check_text_encoding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stair_es.search.options import SearchOptions
    from stair_es.search.query_encoder import QueryInputs
    from stair_es.search.request import TwoPhase
    from stair_es.sources.base import ReadLimits

_WHAT, _WHO, _HOW = "Query", "Conditions on images", "Search"


def _define_option(name: str, help_text: str, panel: str, **more: Any) -> Any:  # noqa: ANN401  an option for Typer
    return typer.Option(f"--{name}", help=help_text, rich_help_panel=panel, **more)


QueryTypeChoice = Literal["rank_features", "neural_sparse", "seismic", "sparse_vector", "impacts"]
_Many = list[str] | None
_OPTIONS_BY_NAME: dict[str, tuple[Any, Any]] = {
    "image": (
        Annotated[
            _Many,
            _define_option("image", "Search by an image; may be given several times.", _WHAT, metavar="FILE|URL"),
        ],
        None,
    ),
    "allow_private_urls": (shared.AllowPrivateUrlsOption, False),
    "text": (Annotated[_Many, _define_option("text", "An additional text, without operators.", _WHAT)], None),
    "weights": (
        Annotated[
            str,
            _define_option(
                "weights",
                "Weights of WORDS, each --text and each --image, in this order: 1,0.5. Negative weights subtract.",
                _WHAT,
            ),
        ],
        "",
    ),
    "boost": (
        Annotated[
            _Many, _define_option("boost", "Multiply the weight of a token in the query, like dog^2.", _WHAT, metavar="WORD=X")
        ],
        None,
    ),
    "mute": (Annotated[_Many, _define_option("mute", "Remove a token from the query.", _WHAT, metavar="WORD")], None),
    "literal": (Annotated[bool, _define_option("literal", "Treat +, - and ^ in WORDS as plain text.", _WHAT)], False),
    "hybrid": (
        Annotated[
            Literal["none", "sum", "rrf"],
            _define_option("hybrid", "Combine with BM25 on the caption: sum of the scores, or reciprocal rank fusion.", _WHAT),
        ],
        "none",
    ),
    "caption": (Annotated[str, _define_option("caption", "Text for BM25. [default: WORDS]", _WHAT)], ""),
    "caption_weight": (Annotated[float, _define_option("caption-weight", "Weight of the BM25 score.", _WHAT, min=0.0)], 1.0),
    "caption_field": (Annotated[str, _define_option("caption-field", "Field for BM25.", _WHAT)], "caption"),
    "require": (
        Annotated[_Many, _define_option("require", "Only images with this token, like +dog.", _WHO, metavar="WORD")],
        None,
    ),
    "exclude": (
        Annotated[_Many, _define_option("exclude", "Only images without this token, like -dog.", _WHO, metavar="WORD")],
        None,
    ),
    "min_weight": (
        Annotated[
            float,
            _define_option(
                "min-weight", "Minimum weight for a token to count as present in --require and --exclude.", _WHO, min=0.0
            ),
        ],
        0.0,
    ),
    "filter_": (
        Annotated[
            _Many,
            _define_option(
                "filter",
                "Filter images by a query string (width:>800 AND format:JPEG), or a query clause as JSON.",
                _WHO,
                metavar="FILTER",
            ),
        ],
        None,
    ),
    "min_score": (Annotated[float | None, _define_option("min-score", "Minimum score of a hit.", _WHO, min=0.0)], None),
    "query_type": (
        Annotated[
            QueryTypeChoice | None, _define_option("query-type", "Query type. [default: chosen by cluster and index]", _HOW)
        ],
        None,
    ),
    "weight_mass": (
        Annotated[
            float | None,
            _define_option("weight-mass", "Send only the heaviest tokens that make up this share of the total weight.", _HOW),
        ],
        None,
    ),
    "pipeline": (
        Annotated[str | None, _define_option("pipeline", "Search pipeline to use (OpenSearch).", _HOW, metavar="NAME")],
        None,
    ),
    "two_phase": (
        Annotated[
            str,
            _define_option(
                "two-phase",
                "Search with the heaviest tokens only, and rescore the best hits with all.",
                _HOW,
                metavar="HEAVY[:WINDOW]",
            ),
        ],
        "",
    ),
}
SEARCH_OPTIONS = OptionGroup(_OPTIONS_BY_NAME)
"""Search options of a command; `parse_query_inputs` and `parse_search_options` read them."""


def parse_query_inputs(words: Sequence[str], example: str) -> QueryInputs:
    """Parse the query from the words and the options.

    Args:
        words: Words of the command line.
        example: Example for the error message.

    Returns:
        The inputs of the query.

    Raises:
        UsageError: If there is nothing to search for, or an option is invalid.
    """
    from stair_es.search.query_encoder import QueryInputs

    given = SEARCH_OPTIONS.values
    typed = check_text_encoding(" ".join(words).strip())
    texts = [check_text_encoding(text) for text in given["text"] or [] if text.strip()]
    images = check_image_arguments("--image", given["image"] or [])
    if not given["literal"]:
        note_plain_operators(typed)
    if not (typed or texts or images or given["caption"].strip()):
        raise UsageError("nothing to search for: no words, no --text, no --image", f"Give one of them: {example}")
    return QueryInputs(
        words=typed,
        texts=texts,
        images=images,
        weights=_parse_weights(given["weights"]),
        literal=given["literal"],
        required=given["require"] or [],
        excluded=given["exclude"] or [],
        boosts=dict(_parse_boost(text) for text in given["boost"] or []),
        muted=frozenset(given["mute"] or []),
        min_weight=given["min_weight"],
        filters=given["filter_"] or [],
        caption=_parse_caption(typed),
        caption_weight=given["caption_weight"],
        caption_field=given["caption_field"],
        min_score=given["min_score"],
    )


def get_reading_options() -> ReadLimits:
    """Return the limits for reading an image, and whether its URL may lead to private addresses."""
    return build_reading(allow_private=SEARCH_OPTIONS.values["allow_private_urls"])


def parse_search_options(*, explain_engine: bool = False) -> SearchOptions:
    """Parse the search options.

    Args:
        explain_engine: Whether the engine explains the scores.

    Returns:
        The search options.

    Raises:
        UsageError: If an option is invalid.
        QueryError: If a number is out of range.
    """
    from stair_es.search.options import SearchOptions

    given = SEARCH_OPTIONS.values
    return SearchOptions(
        query_type=given["query_type"],
        weight_mass=given["weight_mass"],
        two_phase=_parse_two_phase(given["two_phase"]),
        fusion="rrf" if given["hybrid"] == "rrf" else "sum",
        search_pipeline=given["pipeline"],
        explain_engine=explain_engine,
    )


def parse_cursor(text: str) -> list[Any] | None:
    """Parse the cursor of a page, as `search` prints it.

    Args:
        text: JSON, `start`, or empty for no pages.

    Returns:
        The cursor, or None for the first page.

    Raises:
        UsageError: If it is not a cursor.
    """
    try:
        value = json.loads(text) if text not in ("", "start") else None
    except ValueError:
        value = ()
    if value is None or (isinstance(value, list) and value):
        return value
    raise UsageError(
        f"not a cursor: {text!r}", "Give --after `start`, then the cursor printed below the hits of each page, in quotes."
    )


def _parse_caption(typed: str) -> str:
    given = SEARCH_OPTIONS.values
    if given["caption"].strip():
        return check_text_encoding(given["caption"])
    if given["hybrid"] == "none":
        for name in ("caption_weight", "caption_field"):
            if given[name] != _OPTIONS_BY_NAME[name][1]:
                raise UsageError(f"--{name.replace('_', '-')} requires BM25", "Add --hybrid or --caption.")
        return ""
    from stair_es.search.query_parser import parse_query

    text = typed if given["literal"] else parse_query(typed).text
    if not text:
        raise UsageError("--hybrid has no text for BM25", "Give words, or --caption TEXT.")
    return text


def _parse_weights(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise UsageError(f"--weights {text!r}: not comma-separated numbers", "As in: --weights 1,0.5") from None


def _parse_boost(text: str) -> tuple[str, float]:
    from stair_es.search.query_parser import parse_factor

    word, _, number = text.rpartition("=")
    factor = parse_factor(number)
    if not word or factor is None:
        raise UsageError(f"--boost {text!r}: not WORD=NUMBER", "For example: --boost dog=2; 0 removes the word.")
    return word, factor


def _parse_two_phase(text: str) -> TwoPhase | None:
    from stair_es.search.request import TwoPhase

    if not text:
        return None
    heavy, separator, window = text.partition(":")
    try:
        return TwoPhase(top_k=int(heavy), window_size=int(window)) if separator else TwoPhase(top_k=int(heavy))
    except ValueError:
        raise UsageError(f"--two-phase {text!r}: not HEAVY or HEAVY:WINDOW", "As in: --two-phase 32:200") from None
