"""What searches won't find of documents that are written all the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from stair_es.cluster.token_ids import IDS_FIELD, TokenIds
from stair_es.types import SparseVector

EMPTIED = "the word policy leaves it no word"
NO_ID = "the index has no id for some of its tokens"
_SAID = {
    EMPTIED: "the word policy leaves {count} no word: {they_are} stored, but no query finds {them}",
    NO_ID: "the index has no id for tokens of {count}: SEISMIC doesn't find {them} by those, an exact search does",
}


def describe_loss(vector: SparseVector, document: Mapping[str, Any], token_ids: TokenIds | None) -> str:
    """Return `EMPTIED` or `NO_ID` for a document that can't be found by all that its model gave it; "" for all others.

    Args:
        vector: Of the encoder.
        document: What was made of it.
        token_ids: Of the index, if it keeps any.
    """
    tokens = document["tokens"]
    if len(vector) and not tokens:
        return EMPTIED
    return NO_ID if token_ids and len(tokens) > len(document.get(IDS_FIELD, ())) else ""


def describe_losses(losses: Counter[str], what: str) -> Iterator[str]:
    """Yield a sentence for each kind of loss that there was; `what` says of what: `image`."""
    for loss, sentence in _SAID.items():
        if losses[loss]:
            ending, they_are, them = ("", "it is", "it") if losses[loss] == 1 else ("s", "they are", "them")
            yield sentence.format(count=f"{losses[loss]:,} {what}{ending}", they_are=they_are, them=them)
