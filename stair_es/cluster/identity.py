"""What an index is called, and what stands in it about itself (`_meta.stair_es`): a name alone proves nothing. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from stair_es.cluster.documents import DOCUMENT_VERSION
from stair_es.errors import IndexMismatch, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stair_es.policy import WordPolicy
    from stair_es.types import Fit, Json

_BAD_NAME = re.compile(r'[\\/*?"<>|\s,#:A-Z]|^[-_+.]')
LONGEST_NAME = 255
WORDS_SUFFIX, WRITE_SUFFIX = ".words", ".write"
"""What the words index of an index is called (see `words_index`), and the alias that each index is written through."""
_ADDED_LATER = frozenset({"policy", "policy_undo"})
"""An index from before there were policies lacks these fields; it gets them with its first policy."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What an index is made with: documents of another identity don't belong into it."""

    model_name: str
    """What to ask for: `--model`."""
    model_id: str
    settings: Mapping[str, Json]
    """Everything else that makes documents differ."""
    fit: Fit | None = None
    """How images became squares, for queries by image to do the same; the id of the model counts it already."""
    tokens: tuple[str, ...] = ()
    """All tokens that vectors of the model can have, for an index that keeps their ids (see `token_ids`)."""

    @property
    def digest(self) -> str:
        """8 hex digits that stand for it (the name of the model doesn't count, its id does)."""
        parts = json.dumps([DOCUMENT_VERSION, self.model_id, dict(self.settings)], sort_keys=True)
        return hashlib.sha256(parts.encode()).hexdigest()[:8]


@dataclass(frozen=True, kw_only=True)
class OpenIndex:
    """An index that documents of one identity may be written into."""

    name: str
    created: bool
    """By this call: then it is empty, and no document in it can be up to date."""
    live: str | None
    """The index that the alias stands for, and that a swap would replace; None if that is `name` itself."""
    policy: WordPolicy | None = None
    """That of the index: all documents in it go through it."""
    under_way: str | None = None
    """`apply` or `rollback`, if that of the policy has not ended: some documents may still be as they were before."""

    @property
    def write_alias(self) -> str:
        """See the function of this name."""
        return write_alias(self.name)


def check_alias(alias: str) -> None:
    """Nothing, if an alias may be called so.

    Raises:
        UsageError: With the rule that it breaks.
    """
    if not alias or _BAD_NAME.search(alias) or len(alias.encode()) > 200:
        raise UsageError(
            f"not an index name: {alias!r}",
            'Use lower case, without spaces and \\ / * ? " < > | , # : and not starting with - _ + or a dot.',
        )


def build_prefix(alias: str) -> str:
    """How the aliases begin by which builds for `alias` are found again; the digest of what is built follows."""
    return f"{alias}.building-"


def write_alias(index: str) -> str:
    """Return the alias that one index is written through for all its life, whatever the alias that people search stands for.

    An alias, since `require_alias` keeps an index that was deleted from coming to life again with guessed types.
    """
    return f"{index}{WRITE_SUFFIX}"


def other_aliases(index: str, described: Mapping[str, Any]) -> set[str]:
    """Return the aliases of an index, as the cluster describes it, without the one that it is written through."""
    return set(described.get("aliases", {})) - {write_alias(index)}


def index_name(alias: str, model_id: str, now: datetime) -> str:
    """`<alias>-<model>-<timestamp>`; a long model id is cut, so that there is room for what the words index is called."""
    stamp = f"{now.astimezone(timezone.utc):%Y%m%d-%H%M%S-%f}"
    model = re.sub(r"[^a-z0-9.]+", "-", model_id.lower()).strip("-")
    longest = LONGEST_NAME - len(WORDS_SUFFIX + WRITE_SUFFIX)
    return f"{alias}-{model[: longest - len(alias.encode()) - len(stamp) - 2]}-{stamp}"


def about(identity: Identity, alias: str) -> dict[str, Any]:
    """What `_meta.stair_es` of a new index says."""
    return {
        "model_name": identity.model_name,
        "model": identity.model_id,
        **({"fit": identity.fit} if identity.fit else {}),
        "settings": dict(identity.settings),
        "digest": identity.digest,
        "alias": alias,
        **({"token_ids": list(identity.tokens)} if identity.tokens else {}),
    }


def holds_of(about: Mapping[str, Any]) -> str:
    """What an index is of, by what it says about itself: an index of one never takes the place of one of the other."""
    return "texts" if "texts" in (about.get("settings") or {}) else "images"


def has_thumbnails(index: Mapping[str, Any]) -> bool:
    """Whether the documents of an index, as the cluster describes it, were written with thumbnails."""
    about = ours(index)
    settings = about.get("settings")
    px = settings.get("thumbnail_px") if isinstance(settings, dict) else None  # an old index doesn't say
    return px != 0 and holds_of(about) == "images"


def has_colours(index: Mapping[str, Any]) -> bool:
    """Return whether the documents of an index, as the cluster describes it, have `colours` that can be counted."""
    field = index.get("mappings", {}).get("properties", {}).get("colours", {})
    return field.get("type") == "keyword" and holds_of(ours(index)) == "images"


def with_meta(body: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a new index with `_meta.stair_es`; all else in it stays as it is."""
    mappings = body.get("mappings", {})
    return {**body, "mappings": {**mappings, "_meta": {**mappings.get("_meta", {}), "stair_es": dict(about)}}}


def mapping_differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """How the field types of an existing mapping differ from those wanted, one phrase a field.

    Additional fields are fine, and so is one without the fields of word policies.
    """
    fields, existing = wanted.get("properties", {}), found.get("properties", {})
    return [
        f"{name} is {existing[name].get('type', 'object')} instead of {spec.get('type', 'object')}"
        if name in existing
        else f"{name} is missing"
        for name, spec in fields.items()
        if (name not in existing and name not in _ADDED_LATER)
        or existing.get(name, spec).get("type", "object") != spec.get("type", "object")
    ]


def ours(index: Mapping[str, Any]) -> Mapping[str, Any]:
    """`_meta.stair_es` of an index as the cluster describes it; empty for one that isn't ours, and for a words index."""
    about = _about(index)
    return {} if "words_of" in about else about


def words_of(index: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same of a words index; empty for all others."""
    about = _about(index)
    return about if "words_of" in about else {}


def refuse_words(name: str, index: Mapping[str, Any]) -> None:
    """Nothing, unless this is a words index where one of images is asked for.

    Raises:
        IndexMismatch: It is.
    """
    about = words_of(index)
    if about:
        raise IndexMismatch(
            f"index {name!r} holds the words of {str(about['words_of'])!r} for charts, and no images",
            f"Name the images: --index {about.get('alias', about['words_of'])}; a pattern leaves words out with PATTERN,-*.words",
        )


def _about(index: Mapping[str, Any]) -> Mapping[str, Any]:
    about = index.get("mappings", {}).get("_meta", {}).get("stair_es", {})
    return about if isinstance(about, dict) else {}
