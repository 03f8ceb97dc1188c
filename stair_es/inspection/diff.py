"""Compare the stored vector of an image with the one that a model gives now, and explain the differences. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stair_es.types import SparseVector

if TYPE_CHECKING:
    from stair_es.inspection.stored_document import StoredImage
    from stair_es.token_policy import TokenPolicy

TOLERANCE = 1e-4
"""Maximum difference of a weight between the backends of one model; see docs/stair-mini.md."""


@dataclass(frozen=True, kw_only=True)
class CurrentVector:
    """The vector of an image as encoded now."""

    sha256: str
    """SHA-256 of the image's bytes."""
    model: str
    """Id of the model."""
    vector: SparseVector
    """Vector from the model, without the token policy."""


@dataclass(frozen=True, kw_only=True)
class WeightDifference:
    """A token whose stored weight differs from the current one."""

    token: str
    stored: float
    """0 if the token isn't stored."""
    current: float


@dataclass(frozen=True, kw_only=True)
class VectorComparison:
    """Differences between the stored and the current vector."""

    differences: tuple[WeightDifference, ...]
    """Largest first."""
    reasons: tuple[str, ...]
    """What has changed since the image was ingested, as messages."""

    @property
    def is_same(self) -> bool:
        """Whether the vectors are equal except for rounding."""
        return not self.differences


@dataclass(frozen=True, kw_only=True)
class PolicyEffect:
    """The effect of a token policy on a document."""

    rules: tuple[str, ...]
    """The rules that apply, as named by `TokenPolicy.rules`; empty if the policy of the index is unknown."""
    tokens: tuple[WeightDifference, ...]
    """Each token that it changed: `stored` with the policy, `now` without it. Largest first."""


def compare_vectors(image: StoredImage, now: CurrentVector, policy: TokenPolicy | None) -> VectorComparison:
    """Compare the stored vector with the current one after the policy of the index is applied to it, as in an ingest."""
    wanted = policy.apply(now.vector).vector if policy else now.vector
    return VectorComparison(
        differences=_diff_vectors(image.vector, wanted, TOLERANCE), reasons=tuple(_explain_changes(image, now, policy))
    )


def find_policy_effect(image: StoredImage, policy: TokenPolicy | None) -> PolicyEffect | None:
    """Return the effect of a policy on a document; None if it changed nothing."""
    if not image.undo:
        return None
    original = _restore_original(image)
    return PolicyEffect(
        rules=policy.apply(original).rules if policy else (),
        tokens=_diff_vectors(image.vector, original, 0.0),
    )


def _diff_vectors(stored: SparseVector, now: SparseVector, tolerance: float) -> tuple[WeightDifference, ...]:
    before, after = stored.to_dict(), now.to_dict()
    found = (
        WeightDifference(token=word, stored=before.get(word, 0.0), current=after.get(word, 0.0))
        for word in dict.fromkeys([*before, *after])
    )
    other = [each for each in found if abs(each.stored - each.current) > tolerance]
    return tuple(sorted(other, key=lambda each: (-abs(each.stored - each.current), each.token)))


def _explain_changes(image: StoredImage, now: CurrentVector, policy: TokenPolicy | None) -> list[str]:
    source, found = image.source, list[str]()
    if source.get("sha256") not in (None, now.sha256):
        found.append("the file has changed since it was ingested")
    if source.get("model") not in (None, now.model):
        found.append(f"the stored tokens are from the model {source['model']}, the current ones from {now.model}")
    has, wanted = source.get("policy"), policy.digest if policy and policy.apply(_restore_original(image)).undo else None
    if has != wanted:
        found.append(
            f"{_describe_policy(has)} was applied to the document, but an ingest would apply {_describe_policy(wanted)}: "
            "stair-es policy apply or rollback has not reached it"
        )
    return found


def _restore_original(image: StoredImage) -> SparseVector:
    try:
        return image.undo.restore(image.vector)
    except ValueError:  # written by another program
        return image.vector


def _describe_policy(digest: object) -> str:
    return f"the token policy {digest}" if digest else "no token policy"
