"""The document of one image. Pure."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

from stair_es import feature_names
from stair_es.config.defaults import THUMBNAIL_PX
from stair_es.errors import UsageError
from stair_es.token_policy import PolicyUndo, TokenPolicy
from stair_es.types import DocumentIdKind, Json, SparseVector, TokensType

DOCUMENT_VERSION = 6
"""Part of each document fingerprint and index spec: increment it when the same image would give another document."""

ANNOTATION_FIELD = "stair_es"
"""Object in the documents of other programs that `stair-es annotate` records in what it has written."""

LABELS_FIELD = "labels"
"""Labels from elsewhere with their confidences, as token weights of their own."""
LABEL_FIELDS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        LABELS_FIELD: {"type": "rank_features"},
        "top_labels": {"type": "keyword"},
        "labels_policy": {"type": "keyword"},
        "labels_undo": {"type": "object", "enabled": False},
    }
)
"""What an index with labels has in its mapping: those with their weights, all names with the heaviest first, the digest of the
policy that changed them, and what restores them."""

IMPACT_SCALE = 1000
"""Steps per unit of weight in `impacts`: a token's part of a score is off by at most half a thousandth."""

_MAX_TERM_CHARS = 255
"""The `standard` tokenizer splits longer tokens."""
_SINGLE_CHAR_TOKENS = re.compile(r"[\u3040-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
"""Hiragana and ideographs: the `standard` tokenizer makes each of them a separate token."""


@dataclass(frozen=True, kw_only=True)
class DocumentSettings:
    """What a document contains in addition to the vector, and how it is indexed; part of its fingerprint."""

    top_token_count: int = 16
    thumbnail_px: int = THUMBNAIL_PX
    """Longer side of the thumbnail; 0 for none."""
    id: DocumentIdKind = "uri"
    impacts: bool = False
    """Whether documents have the field that a plain `match` searches (OpenSearch only)."""
    vector: TokensType = "rank_features"
    """Field type of `tokens`: `sparse_vector` is Elasticsearch's."""


@dataclass(frozen=True, kw_only=True)
class ImageMetadata:
    """Metadata of an image; what is None is left out of its document."""

    uri: str
    name: str | None = None
    """The file's name, readable."""
    folder: str | None = None
    """The readable folder: a path for local files, else a URL."""
    source: str | None = None
    version: str | None = None
    """Version of the bytes that their store reports without reading them."""
    modified_at: str | None = None
    """Time of the last modification of the bytes, as reported by their store."""
    bytes: int | None = None
    sha256: str | None = None
    perceptual_hash: str | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    taken_at: str | None = None
    thumbnail: str | None = None
    colors: tuple[str, ...] = ()
    """Names of its colors, heaviest first."""


RESERVED_FIELDS = frozenset(
    {
        *("tokens", "top_tokens", *LABEL_FIELDS, "impacts", "model", "fingerprint", "ingested_at", "policy", "policy_undo"),
        *(field.name for field in fields(ImageMetadata)),
    }
)
"""Fields of stair-es, which a column can't use."""


@dataclass(frozen=True, kw_only=True)
class TextMetadata:
    """Metadata of a text. The text itself is the field `caption`."""

    uri: str
    source: str
    sha256: str


def make_document_id(uri: str) -> str:
    """Make the `_id` of the image at a URI: the first 128 bits of the URI's SHA-256, in hex."""
    return hashlib.sha256(uri.encode()).hexdigest()[:32]


def make_content_id(sha256: str) -> str:
    """Make the `_id` of an image from its content: the first 128 bits of its SHA-256, in hex."""
    return sha256[:32]


def compute_document_fingerprint(
    sha256: str, model_id: str, settings: DocumentSettings, fields: Mapping[str, Json], enrichers: Sequence[str] = ()
) -> str:
    """Compute the fingerprint of everything that a document is made from: a stored document with the same one is up to date.

    `enrichers` are the identities of the enrichers that the image went through, in order.
    """
    parts = [DOCUMENT_VERSION, sha256, model_id, asdict(settings), dict(fields), list(enrichers)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def check_field_names(names: Iterable[str]) -> None:
    """Raise UsageError for a column that has the name of a field of stair-es, or one that no engine accepts."""
    for name in names:
        if name.partition(".")[0] in RESERVED_FIELDS:  # the part before a dot names an object
            raise UsageError(
                f"column {name!r} has the same name as a field of stair-es",
                f"Map it to another one: --field NAME={name}",
                code="reserved-field-name",
            )
        if name.startswith("_") or not all(name.split(".")):
            raise UsageError(
                f"not a field name: {name!r}", f"Map it to another one: --field NAME={name}", code="invalid-field-name"
            )


def build_document(
    vector: SparseVector,
    metadata: ImageMetadata | TextMetadata,
    *,
    model_id: str,
    fields: Mapping[str, Json] = MappingProxyType({}),
    fingerprint: str | None = None,
    ingested_at: str | None = None,
    settings: DocumentSettings = DocumentSettings(),
    policy: TokenPolicy | None = None,
) -> dict[str, Any]:
    """Build the `_source` of one image or text, as `ingest` writes it; what is None is left out.

    The policy is applied here to the encoder's vector. The fingerprint doesn't depend on it, so an index can be given another
    policy without encoding an image again.

    Args:
        vector: The encoder's vector.
        metadata: Metadata; for an image at least its URI.
        model_id: `Encoder.model_id` of the encoder.
        fields: Further fields, as in `build_mapping`.
        fingerprint: See `compute_document_fingerprint`; without it, `ingest` can't tell whether the document is up to date.
        ingested_at: Time of the write, in ISO 8601.
        settings: What the document contains besides.
        policy: Token policy of the index, if it has one.

    Raises:
        UsageError: If a field has the name of one of stair-es, or one that no engine accepts.
    """
    check_field_names(fields)
    columns = {**fields, **asdict(metadata), "model": model_id, "fingerprint": fingerprint, "ingested_at": ingested_at}
    columns["colors"] = list(columns.get("colors", ())) or None
    return {
        **build_vector_fields(vector, settings, policy),
        **{name: value for name, value in columns.items() if value is not None},
    }


def build_vector_fields(vector: SparseVector, settings: DocumentSettings, policy: TokenPolicy | None = None) -> dict[str, Any]:
    """Build the fields that come from the encoder's vector: the policy is applied here."""
    undo = PolicyUndo()
    if policy is not None:
        applied = policy.apply(vector)
        vector, undo = applied.vector, applied.undo
    return {
        "tokens": {feature_names.escape_feature(token): weight for token, weight in vector},
        "top_tokens": list(vector.top(settings.top_token_count).tokens),
        **({"impacts": encode_impacts(vector)} if settings.impacts else {}),
        **({"policy": policy.digest, "policy_undo": _build_undo_field(undo)} if policy and undo else {}),
    }


def build_label_fields(labels: SparseVector, policy: TokenPolicy | None = None) -> dict[str, Any]:
    """Build the fields of labels from elsewhere; the policy of labels is applied here."""
    vector, undo = labels, PolicyUndo()
    if policy is not None:
        applied = policy.apply(labels)
        vector, undo = applied.vector, applied.undo
    return {
        LABELS_FIELD: {feature_names.escape_feature(label): weight for label, weight in vector},
        "top_labels": list(vector.tokens),
        **({"labels_policy": policy.digest, "labels_undo": _build_undo_field(undo)} if policy and undo else {}),
    }


def merge_labels(stored: Mapping[str, Any], labels: Mapping[str, float], policy: TokenPolicy | None = None) -> Mapping[str, Any]:
    """Build the fields of the labels of a document and further ones; of two confidences for one, the higher counts."""
    if not labels:
        return stored
    merged = parse_labels(stored).to_dict()
    merged |= {label: max(weight, merged.get(label, 0.0)) for label, weight in labels.items()}
    return build_label_fields(SparseVector.from_mapping(merged), policy)


def parse_labels(source: Mapping[str, Any]) -> SparseVector:
    """Parse the labels of a stored document as they were imported, without the effects of a policy."""
    return _parse_undo(source.get("labels_undo")).restore(parse_token_vector(source.get(LABELS_FIELD)))


def _build_undo_field(undo: PolicyUndo) -> dict[str, Any]:
    return {
        "tokens": {feature_names.escape_feature(token): weight for token, weight in undo.tokens.items()},
        "added": [feature_names.escape_feature(token) for token in undo.added_tokens],
    }


def parse_policy_undo(source: Mapping[str, Any]) -> PolicyUndo:
    """Parse what restores the original vector of a stored document; empty if no policy changed it."""
    return _parse_undo(source.get("policy_undo"))


def _parse_undo(stored: object) -> PolicyUndo:
    if not isinstance(stored, Mapping):
        return PolicyUndo()
    added = stored.get("added")
    added = [token for token in added if isinstance(token, str)] if isinstance(added, list) else []
    return PolicyUndo(
        tokens=parse_token_weights(stored.get("tokens")), added_tokens=tuple(map(feature_names.unescape_feature, added))
    )


def parse_token_weights(value: object) -> dict[str, float]:
    """Parse tokens and weights of a document that may not be ours: null values are skipped, other JSON gives no tokens.

    Raises:
        ValueError: If a weight is a number without end, or a text that is none.
        TypeError: If a weight is a list or an object.
    """
    if not isinstance(value, Mapping):
        return {}
    return {feature_names.unescape_feature(token): _parse_weight(weight) for token, weight in value.items() if weight is not None}


def _parse_weight(weight: Any) -> float:  # noqa: ANN401  JSON
    try:
        return float(weight)
    except OverflowError as error:  # an integer of 400 digits is no weight either
        raise ValueError(f"not a weight: {error}") from error


def parse_token_vector(tokens: object) -> SparseVector:
    """Parse the field `tokens` of a document from any program; invalid weights are dropped."""
    weights = {}
    for token, value in tokens.items() if isinstance(tokens, Mapping) else ():  # with another mapping, it may contain anything
        with suppress(TypeError, ValueError, OverflowError):
            weight = float(value)
            if math.isfinite(weight) and weight > 0:
                weights[feature_names.unescape_feature(token)] = weight
    return SparseVector.from_mapping(weights)


def get_field_value(source: object, path: str) -> object:
    """Get the value at a dotted path of a document; of a list, the first one that is there. None and "" are no values."""
    if isinstance(source, list):
        return next((value for each in source if (value := get_field_value(each, path)) is not None), None)
    if not path:
        return None if source == "" else source
    if not isinstance(source, Mapping):
        return None
    if path in source:  # a name may contain dots
        return get_field_value(source[path], "")
    head, _, rest = path.partition(".")
    return get_field_value(source.get(head), rest) if rest else None


def encode_impacts(vector: SparseVector) -> str:
    """Encode a vector for the field `impacts`: space-separated `token|impact`, impact = weight x `IMPACT_SCALE`, at least 1.

    Tokens that a `match` can't find are left out (see `is_single_term`).
    """
    return " ".join(f"{token}|{max(1, round(weight * IMPACT_SCALE))}" for token, weight in vector if is_single_term(token))


def is_single_term(token: str) -> bool:
    """Return whether the `standard` tokenizer keeps this token unchanged, so that a `match` can find it.

    It turns `##ing` into `ing`, which is a different token, drops punctuation, and splits at spaces and `|`.
    """
    if not 0 < len(token) <= _MAX_TERM_CHARS or not all(c.isalpha() or c.isdecimal() for c in token):
        return False
    return len(token) == 1 or not _SINGLE_CHAR_TOKENS.search(token)
