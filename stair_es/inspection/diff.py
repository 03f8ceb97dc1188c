"""Compare the stored vector of an image with the one that a model gives now, and explain the differences. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from stair_es.inspection.stored_document import StoredImage
from stair_es.token_policy import TokenPolicy
from stair_es.types import SparseVector

TOLERANCE = 1e-4
"""Maximum difference of a weight between the backends of one model; see docs/stair-mini.md."""


@dataclass(frozen=True, kw_only=True)
class CurrentVector:
    """The vector of an image as encoded now."""

    sha256: str
    model: str
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
    """Each token that it changed: `stored` with the policy, `current` without it. Largest first."""


def compare_vectors(image: StoredImage, current: CurrentVector, policy: TokenPolicy | None) -> VectorComparison:
    """Compare the stored vector with the current one after the policy of the index is applied to it, as in an ingest."""
    expected = policy.apply(current.vector).vector if policy else current.vector
    return VectorComparison(
        differences=_diff_vectors(image.vector, expected, TOLERANCE), reasons=tuple(_explain_changes(image, current, policy))
    )


def find_policy_effect(image: StoredImage, policy: TokenPolicy | None) -> PolicyEffect | None:
    """Return the effect of a policy on a document; None if it changed nothing."""
    if not image.undo:
        return None
    original = _restore_original(image)
    return PolicyEffect(rules=policy.apply(original).rules if policy else (), tokens=_diff_vectors(image.vector, original, 0.0))


def _diff_vectors(stored: SparseVector, current: SparseVector, tolerance: float) -> tuple[WeightDifference, ...]:
    stored_weights, current_weights = stored.to_dict(), current.to_dict()
    differences = (
        WeightDifference(token=token, stored=stored_weights.get(token, 0.0), current=current_weights.get(token, 0.0))
        for token in dict.fromkeys([*stored_weights, *current_weights])
    )
    significant = [difference for difference in differences if abs(difference.stored - difference.current) > tolerance]
    return tuple(sorted(significant, key=lambda difference: (-abs(difference.stored - difference.current), difference.token)))


def _explain_changes(image: StoredImage, current: CurrentVector, policy: TokenPolicy | None) -> list[str]:
    source, reasons = image.source, list[str]()
    if source.get("sha256") not in (None, current.sha256):
        reasons.append("the file has changed since it was ingested")
    if source.get("model") not in (None, current.model):
        reasons.append(f"the stored tokens are from the model {source['model']}, the current ones from {current.model}")
    stored, expected = source.get("policy"), policy.digest if policy and policy.apply(_restore_original(image)).undo else None
    if stored != expected:
        reasons.append(
            f"{_describe_policy(stored)} was applied to the document, but an ingest would apply {_describe_policy(expected)}: "
            "stair-es policy apply or rollback has not reached it"
        )
    return reasons


def _restore_original(image: StoredImage) -> SparseVector:
    try:
        return image.undo.restore(image.vector)
    except ValueError:  # written by another program
        return image.vector


def _describe_policy(digest: object) -> str:
    return f"the token policy {digest}" if digest else "no token policy"
