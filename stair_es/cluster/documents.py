"""The document of one image. Pure: values in, values out."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from stair_es import vocab
from stair_es.config import THUMBNAIL_PX
from stair_es.errors import UsageError
from stair_es.policy import Undo, WordPolicy
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from stair_es.cluster.token_ids import TokenIds
    from stair_es.types import Json

DOCUMENT_VERSION = 3
"""Goes into each fingerprint and index: raise it when the same image would give another document."""

IMPACT_SCALE = 1000
"""Steps per unit of weight in `impacts`: a word's part of a score is off by half a thousandth at most."""

RESERVED = frozenset(
    {
        "tokens",
        "token_ids",
        "top_tokens",
        "impacts",
        "uri",
        "source",
        "version",
        "sha256",
        "width",
        "height",
        "format",
        "taken_at",
        "colours",
        "thumbnail",
        "model",
        "fingerprint",
        "ingested_at",
        "policy",
        "policy_undo",
    }
)
"""Fields of our own: names that a column can't take."""

_MAX_TERM = 255
"""The `standard` tokenizer cuts longer words."""
_ONE_BY_ONE = re.compile(r"[\u3040-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
"""Hiragana and ideographs: the `standard` tokenizer makes each a word of its own."""


@dataclass(frozen=True, kw_only=True)
class DocumentSettings:
    """What a document holds besides the vector, and how it is indexed; part of its fingerprint."""

    top_words: int = 16
    """Length of `top_tokens`."""
    thumbnail_px: int = THUMBNAIL_PX
    """Longer side of the thumbnail; 0 for none."""
    id: Literal["uri", "content"] = "uri"
    """What makes two images the same document: where they are, or their bytes."""
    impacts: bool = False
    """Whether documents have the field that a plain `match` searches (OpenSearch only)."""
    vector: Literal["rank_features", "sparse_vector", "seismic"] = "rank_features"
    """Field type of `tokens`: `sparse_vector` is Elasticsearch's; `seismic` has `rank_features`, and beside them the field
    `token_ids` for the approximate search of OpenSearch's plugin neural-search."""

    @property
    def tokens_type(self) -> Literal["rank_features", "sparse_vector"]:
        """Type of the field `tokens`."""
        return "sparse_vector" if self.vector == "sparse_vector" else "rank_features"


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What is known of an image besides its words."""

    uri: str
    source: str
    version: str | None
    """Of the bytes, as their store tells it without reading them."""
    sha256: str
    width: int
    height: int
    format: str
    taken_at: str | None
    thumbnail: str | None
    colours: tuple[str, ...] = ()
    """Names of its colours, heaviest first."""


def document_id(uri: str) -> str:
    """The `_id` of the image at `uri`: the first 128 bits of the URI's SHA-256, in hex."""
    return hashlib.sha256(uri.encode()).hexdigest()[:32]


def content_id(sha256: str) -> str:
    """The `_id` of an image by its bytes: the first 128 bits of their SHA-256, in hex."""
    return sha256[:32]


def fingerprint(
    sha256: str, model_id: str, settings: DocumentSettings, fields: Mapping[str, Json], enrichers: Sequence[str] = ()
) -> str:
    """Changes with all that the document is made of: equal means that the stored document is up to date.

    Args:
        sha256: Of the image's bytes.
        model_id: Of the encoder.
        settings: What the document holds.
        fields: The columns of the source.
        enrichers: Identities of the enrichers that the image went through, in order.
    """
    parts = [DOCUMENT_VERSION, sha256, model_id, asdict(settings), dict(fields), list(enrichers)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def check_fields(names: Iterable[str]) -> None:
    """Nothing, if columns may be called so in a document.

    Raises:
        UsageError: One is a field of our own, or no engine takes the name.
    """
    for name in names:
        if name.partition(".")[0] in RESERVED:  # a dot makes an object of what stands before it
            raise UsageError(f"column {name!r} has the name of a field of stair-es", f"Map it to another one: --map NAME={name}")
        if name.startswith("_") or not all(name.split(".")):
            raise UsageError(f"not a field name: {name!r}", f"Map it to another one: --map NAME={name}")


def document(
    vector: SparseVector,
    facts: ImageFacts,
    *,
    fields: Mapping[str, Json],
    model_id: str,
    fingerprint: str,
    ingested_at: str,
    settings: DocumentSettings,
    policy: WordPolicy | None = None,
) -> dict[str, Any]:
    """The `_source` of one image; facts and fields that are `None` are left out.

    The vector is the encoder's: the policy is applied here. The fingerprint doesn't depend on it, so that an index can be
    given another policy without encoding an image again.

    Raises:
        UsageError: A column has the name of a field of our own.
    """
    check_fields(fields)
    known = {name: value for name, value in {**fields, **_facts_fields(facts)}.items() if value is not None}
    return {
        **vector_fields(vector, settings, policy),
        **known,
        "model": model_id,
        "fingerprint": fingerprint,
        "ingested_at": ingested_at,
    }


def _facts_fields(facts: ImageFacts) -> dict[str, Any]:
    return {**asdict(facts), "colours": list(facts.colours) or None}


def vector_fields(vector: SparseVector, settings: DocumentSettings, policy: WordPolicy | None = None) -> dict[str, Any]:
    """The part of a document that comes from its vector, which is the encoder's: the policy is applied here."""
    undo = Undo()
    if policy is not None:
        steered = policy.apply(vector)
        vector, undo = steered.vector, steered.undo
    return {
        "tokens": {vocab.escape(word): weight for word, weight in vector},
        "top_tokens": list(vector.top(settings.top_words).features),
        **({"impacts": impacts(vector)} if settings.impacts else {}),
        **({"policy": policy.digest, "policy_undo": _undo_field(undo)} if policy and undo else {}),
    }


def with_token_ids(document: Mapping[str, Any], token_ids: TokenIds | None) -> dict[str, Any]:
    """Return a document with the field `token_ids` beside `tokens`, for an index that keeps ids.

    Tokens without an id are left out. A document without any lacks the field: an empty one makes the plugin refuse all others.

    Args:
        document: As it is without the field.
        token_ids: Those under the policy that the document went through; None for an index without the field.
    """
    ids = token_ids.convert(stored_words(document["tokens"]).items()) if token_ids else {}
    return {**document, **({"token_ids": ids} if ids else {})}


def _undo_field(undo: Undo) -> dict[str, Any]:
    return {
        "tokens": {vocab.escape(word): weight for word, weight in undo.words.items()},
        "added": [vocab.escape(word) for word in undo.added],
    }


def undo_of(source: Mapping[str, Any]) -> Undo:
    """What gives a stored document its original vector back; empty where no policy changed it."""
    stored = source.get("policy_undo")
    if not isinstance(stored, Mapping):
        return Undo()
    added = stored.get("added")
    return Undo(
        words=stored_words(stored.get("tokens")),
        added=tuple(vocab.unescape(word) for word in added if isinstance(word, str)) if isinstance(added, list) else (),
    )


def stored_words(value: object) -> dict[str, float]:
    """Words with their weights from a document that anyone may have written: null is no weight, and other JSON has no words."""
    if not isinstance(value, Mapping):
        return {}
    return {vocab.unescape(word): float(weight) for word, weight in value.items() if weight is not None}


def impacts(vector: SparseVector) -> str:
    """The vector for the field `impacts`: `word|impact` with spaces between, impact = weight x `IMPACT_SCALE`, at least 1.

    Words that a `match` can't ask for are left out (see `askable`).
    """
    return " ".join(f"{word}|{max(1, round(weight * IMPACT_SCALE))}" for word, weight in vector if askable(word))


def askable(word: str) -> bool:
    """Whether the `standard` tokenizer makes exactly this word of it, so that a `match` can find it.

    It takes `##ing` for `ing`, which is no word that anyone means, drops punctuation, and cuts at spaces and `|`.
    """
    if not 0 < len(word) <= _MAX_TERM or not all(c.isalpha() or c.isdecimal() for c in word):
        return False
    return len(word) == 1 or not _ONE_BY_ONE.search(word)
