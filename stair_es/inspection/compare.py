"""Whether the words that an index holds of an image are those that a model gives it now, and if not, why. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stair_es.types import SparseVector

if TYPE_CHECKING:
    from stair_es.inspection.stored import StoredImage
    from stair_es.policy import WordPolicy

TOLERANCE = 1e-4
"""How far a weight may differ between the backends of one model: see docs/stair-mini.md."""


@dataclass(frozen=True, kw_only=True)
class Now:
    """An image as it is now."""

    sha256: str
    """Of its bytes."""
    model: str
    """The id of the model."""
    vector: SparseVector
    """As the model gives it."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A word that is stored otherwise than the model would have it now."""

    word: str
    stored: float
    """0 where it isn't there."""
    now: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Stored words beside those of now."""

    differences: tuple[Difference, ...]
    """Largest first."""
    reasons: tuple[str, ...]
    """For people: what has changed since the image was ingested."""

    @property
    def same(self) -> bool:
        """Whether there is no difference but for rounding."""
        return not self.differences


@dataclass(frozen=True, kw_only=True)
class Steered:
    """What a word policy did to a document."""

    rules: tuple[str, ...]
    """Those that hold for it, as `WordPolicy.rules` calls them; empty where the index doesn't tell its policy."""
    words: tuple[Difference, ...]
    """Each word that it changed: `stored` with it, `now` without. Largest first."""


def compare(image: StoredImage, now: Now, policy: WordPolicy | None) -> Comparison:
    """The stored words beside those of now, which go through the index's policy as an ingest would have it."""
    wanted = policy.apply(now.vector).vector if policy else now.vector
    return Comparison(differences=_differences(image.vector, wanted, TOLERANCE), reasons=tuple(_reasons(image, now, policy)))


def steered(image: StoredImage, policy: WordPolicy | None) -> Steered | None:
    """What a policy changed in a document; None if nothing."""
    if not image.undo:
        return None
    original = _original(image)
    return Steered(
        rules=policy.apply(original).rules if policy else (),
        words=_differences(image.vector, original, 0.0),
    )


def _differences(stored: SparseVector, now: SparseVector, tolerance: float) -> tuple[Difference, ...]:
    before, after = stored.to_dict(), now.to_dict()
    found = (
        Difference(word=word, stored=before.get(word, 0.0), now=after.get(word, 0.0)) for word in dict.fromkeys([*before, *after])
    )
    other = [each for each in found if abs(each.stored - each.now) > tolerance]
    return tuple(sorted(other, key=lambda each: (-abs(each.stored - each.now), each.word)))


def _reasons(image: StoredImage, now: Now, policy: WordPolicy | None) -> list[str]:
    source, found = image.source, list[str]()
    if source.get("sha256") not in (None, now.sha256):
        found.append("the file has changed since it was ingested: its bytes are others")
    if source.get("model") not in (None, now.model):
        found.append(f"the stored words are of the model {source['model']}, those of now of {now.model}")
    has, wanted = source.get("policy"), policy.digest if policy and policy.apply(_original(image)).undo else None
    if has != wanted:
        found.append(
            f"the document went through {_named(has)}, an ingest would send it through {_named(wanted)}: "
            "stair-es policy apply or rollback has not reached it"
        )
    return found


def _original(image: StoredImage) -> SparseVector:
    try:
        return image.undo.restore(image.vector)
    except ValueError:  # somebody else wrote it
        return image.vector


def _named(digest: object) -> str:
    return f"the word policy {digest}" if digest else "no word policy"
