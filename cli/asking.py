"""The options of every command that asks: what is looked for, who takes part, and how the cluster is asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stair_es.errors import UsageError

from . import options
from .injected import Injected
from .inputs import check_images, readable, reading_of
from .remarks import say_no_operators

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stair_es.search.body import TwoPhase
    from stair_es.search.how import How
    from stair_es.search.inputs import Inputs
    from stair_es.sources.item import Reading

_WHAT, _WHO, _HOW = "What is looked for", "Who takes part", "How it is asked"


def _option(name: str, help_text: str, panel: str, **more: Any) -> Any:  # noqa: ANN401  an option for Typer
    return typer.Option(f"--{name}", help=help_text, rich_help_panel=panel, **more)


_SHAPES = Literal["rank_features", "neural_sparse", "seismic", "sparse_vector", "impacts"]
_Many = list[str] | None
_OPTIONS: dict[str, tuple[Any, Any]] = {
    "image": (
        Annotated[
            _Many,
            _option("image", "Look for what is on this image; may be given several times.", _WHAT, metavar="FILE|URL"),
        ],
        None,
    ),
    "allow_private_urls": (options.AllowPrivateUrls, False),
    "text": (Annotated[_Many, _option("text", "A further text, taken literally.", _WHAT)], None),
    "weights": (
        Annotated[
            str,
            _option("weights", "One for WORDS, then each --text, then each --image: 1,0.5. Below 0 takes away.", _WHAT),
        ],
        "",
    ),
    "boost": (
        Annotated[_Many, _option("boost", "Change a word's weight in the query; as dog^2.", _WHAT, metavar="WORD=X")],
        None,
    ),
    "mute": (Annotated[_Many, _option("mute", "Leave a word out of the query.", _WHAT, metavar="WORD")], None),
    "literal": (Annotated[bool, _option("literal", "Read no +, - and ^ in WORDS.", _WHAT)], False),
    "hybrid": (
        Annotated[
            Literal["none", "sum", "rrf"],
            _option("hybrid", "Ask BM25 over the caption, too: add the scores, or fuse the ranks.", _WHAT),
        ],
        "none",
    ),
    "caption": (Annotated[str, _option("caption", "Text for BM25; WORDS themselves without it.", _WHAT)], ""),
    "caption_weight": (Annotated[float, _option("caption-weight", "Of BM25 beside the words.", _WHAT, min=0.0)], 1.0),
    "caption_field": (Annotated[str, _option("caption-field", "Field of the text.", _WHAT)], "caption"),
    "require": (Annotated[_Many, _option("require", "Images must have this word; as +dog.", _WHO, metavar="WORD")], None),
    "exclude": (Annotated[_Many, _option("exclude", "Images mustn't have this word; as -dog.", _WHO, metavar="WORD")], None),
    "least": (
        Annotated[float, _option("least", "From which weight on an image has a required or excluded word.", _WHO, min=0.0)],
        0.0,
    ),
    "filter_": (
        Annotated[
            _Many,
            _option("filter", "A query string (width:>800 AND format:JPEG), or a query clause as JSON.", _WHO, metavar="FILTER"),
        ],
        None,
    ),
    "min_score": (Annotated[float | None, _option("min-score", "Leave out what scores less.", _WHO, min=0.0)], None),
    "shape": (
        Annotated[_SHAPES | None, _option("shape", "The query to send; without it the cluster and the index decide.", _HOW)],
        None,
    ),
    "mass": (Annotated[float | None, _option("mass", "Send the heaviest words that hold this share of the weight.", _HOW)], None),
    "pipeline": (
        Annotated[str | None, _option("pipeline", "A search pipeline of the cluster (OpenSearch).", _HOW, metavar="NAME")],
        None,
    ),
    "two_phase": (
        Annotated[
            str,
            _option("two-phase", "Find with few heavy words, score the best with all.", _HOW, metavar="HEAVY[:WINDOW]"),
        ],
        "",
    ),
}
_asking = Injected(_OPTIONS)
asking = _asking.into
"""The command with all these options besides its own; `inputs_given` and `how_given` find them by themselves."""


def inputs_given(words: Sequence[str], example: str) -> Inputs:
    """What is looked for, by the words and the options.

    Raises:
        UsageError: Nothing is, or an option can't be read.
    """
    from stair_es.search.inputs import Inputs

    given = _asking.given
    typed = readable(" ".join(words).strip())
    texts = [readable(text) for text in given["text"] or [] if text.strip()]
    images = check_images("--image", given["image"] or [])
    if not given["literal"]:
        say_no_operators(typed)
    if not (typed or texts or images or given["caption"].strip()):
        raise UsageError("nothing to look for: no words, no --text, no --image", f"Give one of them: {example}")
    return Inputs(
        words=typed,
        texts=texts,
        images=images,
        weights=_numbers(given["weights"]),
        literal=given["literal"],
        required=given["require"] or [],
        excluded=given["exclude"] or [],
        boosts=dict(_boost(text) for text in given["boost"] or []),
        muted=frozenset(given["mute"] or []),
        least=given["least"],
        filters=given["filter_"] or [],
        caption=_caption(typed),
        caption_weight=given["caption_weight"],
        caption_field=given["caption_field"],
        min_score=given["min_score"],
    )


def reading_given() -> Reading:
    """What reading an image may cost, and which addresses its URL may lead to."""
    return reading_of(allow_private=_asking.given["allow_private_urls"])


def how_given(*, engine_explain: bool = False) -> How:
    """How to ask, by the options.

    Args:
        engine_explain: Let the engine explain the scores.

    Raises:
        UsageError: An option can't be read.
        QueryError: A number can't be.
    """
    from stair_es.search.how import How

    given = _asking.given
    return How(
        shape=given["shape"],
        mass=given["mass"],
        two_phase=_two_phase(given["two_phase"]),
        fusion="rrf" if given["hybrid"] == "rrf" else "sum",
        pipeline=given["pipeline"],
        engine_explain=engine_explain,
    )


def cursor(text: str) -> list[Any] | None:
    """The cursor of a page, as `search` prints it.

    Raises:
        UsageError: It is none.
    """
    try:
        value = json.loads(text) if text not in ("", "start") else None
    except ValueError:
        value = ()
    if value is None or (isinstance(value, list) and value):
        return value
    raise UsageError(f"not a cursor: {text!r}", "Give --after `start`, then what each page prints below its hits, in quotes.")


def _caption(typed: str) -> str:
    given = _asking.given
    if given["caption"].strip():
        return readable(given["caption"])
    if given["hybrid"] == "none":
        for name in ("caption_weight", "caption_field"):
            if given[name] != _OPTIONS[name][1]:
                raise UsageError(f"--{name.replace('_', '-')} is for BM25, which isn't asked", "Give --hybrid or --caption, too.")
        return ""
    from stair_es.search.wish import parse

    text = typed if given["literal"] else parse(typed).text
    if not text:
        raise UsageError("--hybrid has no text for BM25", "Give words, or --caption TEXT.")
    return text


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise UsageError(f"--weights {text!r}: not numbers with commas between", "As in: --weights 1,0.5") from None


def _boost(text: str) -> tuple[str, float]:
    from stair_es.search.wish import factor_of

    word, _, number = text.rpartition("=")
    factor = factor_of(number)
    if not word or factor is None:
        raise UsageError(f"--boost {text!r}: not WORD=NUMBER", "As in: --boost dog=2; 0 takes the word out.")
    return word, factor


def _two_phase(text: str) -> TwoPhase | None:
    from stair_es.search.body import TwoPhase

    if not text:
        return None
    heavy, separator, window = text.partition(":")
    try:
        return TwoPhase(heavy=int(heavy), window=int(window)) if separator else TwoPhase(heavy=int(heavy))
    except ValueError:
        raise UsageError(f"--two-phase {text!r}: not HEAVY or HEAVY:WINDOW", "As in: --two-phase 32:200") from None
