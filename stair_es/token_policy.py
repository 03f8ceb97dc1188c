"""Token policies: which tokens of a model an index mutes, caps, renames and merges, and which words it was taught.

Pure. The order is fixed: first `rename` and `merge` replace tokens, then muted tokens are removed, then caps apply, then tokens
below their floor are removed, then taught words are added, which are computed from the original vector. If several tokens are
replaced by one, the largest weight is kept. A sum would count the same thing several times, since a model gives `dog` and `dogs`
to the same picture for the same reason, and would leave the scale of the model's weights. The largest weight also doesn't depend
on the order or on rounding.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from stair_es.errors import ResourceError
from stair_es.taught_words import TaughtWord, check_taught_words, compute_products, list_weighted_units
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from stair_es.types import Json

POLICY_VERSION = 1
MIN_WEIGHT = 2.0**-126
"""Smallest weight: engines store float32 and reject subnormal numbers."""


@dataclass(frozen=True, kw_only=True)
class PolicyUndo:
    """What restores the original vector exactly."""

    tokens: Mapping[str, float] = field(default_factory=dict)
    """Tokens that a policy removed or changed, with their original weights."""
    added_tokens: tuple[str, ...] = ()
    """Tokens that the original vector didn't have."""

    def __bool__(self) -> bool:
        return bool(self.tokens or self.added_tokens)

    def restore(self, vector: SparseVector) -> SparseVector:
        """Return the vector as it was before the policy."""
        weights = {token: weight for token, weight in vector if token not in self.added_tokens}
        return SparseVector.from_mapping({**weights, **self.tokens})


@dataclass(frozen=True, kw_only=True)
class PolicyResult:
    """A vector after a policy."""

    vector: SparseVector
    """May be empty: the document stays in the index, but no token matches it."""
    undo: PolicyUndo
    """Empty if the policy changed nothing."""
    rules: tuple[str, ...]
    """Rules that changed the vector, as in `TokenPolicy.rules`."""


@dataclass(frozen=True, kw_only=True)
class TokenPolicy:
    """Rules over unescaped tokens. `config.policy_file` builds it from JSON.

    Raises:
        ResourceError: On construction, if rules contradict each other; names the place of the rule.
    """

    name: str = ""
    mute: tuple[str, ...] = ()
    floor: Mapping[str, float] = field(default_factory=dict)
    """Token -> its minimum weight: a lighter one is removed."""
    cap: Mapping[str, float] = field(default_factory=dict)
    """Token -> its maximum weight."""
    rename: Mapping[str, str] = field(default_factory=dict)
    """Token -> its replacement."""
    merge: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Token -> other tokens that it replaces."""
    teach: Mapping[str, TaughtWord] = field(default_factory=dict)
    """Word -> what it was taught."""

    def __post_init__(self) -> None:
        sources = self._check_replacements()
        self._check_mute(sources)
        self._check_limits("floor", self.floor, sources)
        self._check_limits("cap", self.cap, sources)
        self._check_taught_words()

    def _check_replacements(self) -> Mapping[str, str]:
        """Check the replacements, and return the place of the rule of each replaced token."""
        sources: dict[str, str] = {}
        for location, source, target in self._list_replacements():
            if source == target:
                raise ResourceError(
                    f"{location}: {source!r} is replaced by itself", "Remove it.", code="policy-token-replaced-by-itself"
                )
            if source in sources:
                raise ResourceError(
                    f"{location}: {source!r} already has a rule: {sources[source]}",
                    "A token can have only one replacement.",
                    code="policy-token-in-two-rules",
                )
            sources[source] = location
        for location, _, target in self._list_replacements():
            if target in sources:
                raise ResourceError(
                    f"{location}: {target!r} is itself replaced by {sources[target]}",
                    "Chains and cycles are not allowed: use the last token of the chain.",
                    code="policy-replacement-replaced",
                )
        return sources

    def _check_mute(self, sources: Mapping[str, str]) -> None:
        targets = {target: location for location, _, target in self._list_replacements()}
        muted_at: dict[str, str] = {}
        for i, token in enumerate(self.mute):
            self._check_not_replaced(f"mute[{i}]", token, sources)
            if token in targets or token in muted_at:
                rule = targets.get(token) or muted_at[token]
                raise ResourceError(
                    f"mute[{i}]: {token!r} already has a rule: {rule}",
                    "Mute the tokens that it replaces, or remove this rule.",
                    code="policy-token-in-two-rules",
                )
            muted_at[token] = f"mute[{i}]"

    def _check_limits(self, kind: str, limits: Mapping[str, float], sources: Mapping[str, str]) -> None:
        for token, limit in limits.items():
            self._check_not_replaced(f"{kind}.{token}", token, sources)
            if token in self.mute:
                raise ResourceError(f"{kind}.{token}: {token!r} is muted", "Keep one of the two.", code="policy-limit-of-muted")
            if not (math.isfinite(limit) and limit >= MIN_WEIGHT):
                raise ResourceError(
                    f"{kind}.{token}: {limit:g} is not a valid weight",
                    "Give a number above 0; to remove a token, mute it.",
                    code="policy-limit-invalid",
                )
            if limit > self.cap.get(token, limit):
                raise ResourceError(
                    f"{kind}.{token}: {limit:g} is above its cap, so no weight would be left",
                    "Give it a lower floor; to remove a token, mute it.",
                    code="policy-floor-above-cap",
                )

    def _check_taught_words(self) -> None:
        """Check that no other rule is about a taught word: documents would no longer have what it was taught to mean."""
        rules = {token: location for location, *tokens in self._list_replacements() for token in tokens}
        rules |= {token: f"mute[{i}]" for i, token in enumerate(self.mute)}
        rules |= {token: f"{kind}.{token}" for kind, limits in (("floor", self.floor), ("cap", self.cap)) for token in limits}
        check_taught_words(self.teach, rules)

    @staticmethod
    def _check_not_replaced(location: str, token: str, sources: Mapping[str, str]) -> None:
        if token in sources:
            raise ResourceError(
                f"{location}: {token!r} is already replaced by {sources[token]}",
                "Use its replacement.",
                code="policy-token-replaced-twice",
            )

    def _list_replacements(self) -> Iterator[tuple[str, str, str]]:
        """Yield place in the file, token and replacement."""
        for source, target in self.rename.items():
            yield f"rename.{source}", source, target
        for target, merged in self.merge.items():
            for i, source in enumerate(merged):
                yield f"merge.{target}[{i}]", source, target

    @cached_property
    def replacements(self) -> Mapping[str, str]:
        """Token -> its replacement, by `rename` and `merge` alike."""
        return {source: target for _, source, target in self._list_replacements()}

    def replace_tokens(self, tokens: Iterable[str]) -> tuple[str, ...]:
        """Return tokens with their replacements, without duplicates."""
        return tuple(dict.fromkeys(self.replacements.get(token, token) for token in tokens))

    @property
    def tokens(self) -> tuple[str, ...]:
        """Tokens that the policy affects, sorted: it leaves a vector without any of them unchanged."""
        return tuple(sorted({*self.replacements, *self.mute, *self.floor, *self.cap, *self.taught_units}))

    @cached_property
    def taught_units(self) -> Mapping[str, Mapping[str, int]]:
        """The units of the taught words by the tokens of the model, as `list_weighted_units`."""
        return list_weighted_units(self.teach.values())

    @property
    def rules(self) -> tuple[str, ...]:
        """One phrase per rule: `mute egyptian`, `cap dog`, `dogs -> dog`, `teach windmill`."""
        return tuple(self.describe_rules())

    def describe_rules(self) -> dict[str, object]:
        """Return the phrase of each rule with its value, to compare policies."""
        return {
            **{_format_replacement(*move): None for move in self.replacements.items()},
            **{f"mute {token}": None for token in self.mute},
            **{f"floor {token}": limit for token, limit in self.floor.items()},
            **{f"cap {token}": limit for token, limit in self.cap.items()},
            **{f"teach {name}": word for name, word in self.teach.items()},
        }

    @cached_property
    def digest(self) -> str:
        """8 hex digits that identify the rules; the name and the order in the file don't count."""
        rules: list[Any] = [
            POLICY_VERSION,
            sorted(self.replacements.items()),
            sorted(self.mute),
            sorted((token, float(limit)) for token, limit in self.cap.items()),
        ]
        if self.floor:
            rules.append(["floor", sorted((token, float(limit)) for token, limit in self.floor.items())])
        if self.teach:
            words = self.teach.items()
            rules.append(sorted((name, sorted(word.units.items()), word.range_units, word.mode) for name, word in words))
        return hashlib.sha256(json.dumps(rules).encode()).hexdigest()[:8]

    @property
    def label(self) -> str:
        """Name and digest for messages."""
        return f"{self.name} ({self.digest})" if self.name else self.digest

    def select_words(self, model_id: str) -> TokenPolicy:
        """Return the policy without the words that were taught from vectors of another model."""
        words = {name: word for name, word in self.teach.items() if word.model in ("", model_id)}
        return self if len(words) == len(self.teach) else replace(self, teach=words)

    def keep_words(self, former: TokenPolicy | None) -> TokenPolicy:
        """Return the policy with the taught words of a former one that it doesn't have."""
        return replace(self, teach={**former.teach, **self.teach}) if former else self

    def change_words(self, taught: Mapping[str, TaughtWord], forgotten: Collection[str] = ()) -> TokenPolicy:
        """Return the policy with words added or taught anew, and others forgotten."""
        words = {**self.teach, **taught}
        return replace(self, teach={name: word for name, word in words.items() if name not in forgotten})

    def to_json(self) -> dict[str, Json]:
        """Return the policy as JSON that `parse_policy` accepts."""
        merge: dict[str, Json] = {target: list(merged) for target, merged in self.merge.items()}
        return {
            "stair_es_policy": POLICY_VERSION,
            "name": self.name,
            "mute": list(self.mute),
            **({"floor": dict(self.floor)} if self.floor else {}),
            "cap": dict(self.cap),
            "rename": dict(self.rename),
            "merge": merge,
            **({"teach": {name: word.to_json() for name, word in self.teach.items()}} if self.teach else {}),
        }

    def apply(self, vector: SparseVector) -> PolicyResult:
        """Return the vector to index under this policy, and what restores the original."""
        before, rules = vector.to_dict(), []
        after: dict[str, float] = {}
        for token, weight in before.items():
            target = self.replacements.get(token, token)
            if target != token:
                rules.append(_format_replacement(token, target))
            after[target] = max(weight, after.get(target, 0.0))
        for token in self.mute:
            if after.pop(token, None) is not None:
                rules.append(f"mute {token}")
        rules += self._apply_limits(after)
        for name, product in compute_products(vector, self.taught_units).items():
            if weight := self.teach[name].scale_product(product):
                after[self.teach[name].token] = weight
                rules.append(f"teach {name}")
        changed = {token: weight for token, weight in before.items() if after.get(token) != weight}
        undo = PolicyUndo(tokens=changed, added_tokens=tuple(sorted(after.keys() - before.keys())))
        return PolicyResult(vector=SparseVector.from_mapping(after), undo=undo, rules=tuple(rules))

    def _apply_limits(self, weights: dict[str, float]) -> Iterator[str]:
        for token, limit in self.cap.items():
            if weights.get(token, 0.0) > limit:
                weights[token] = limit
                yield f"cap {token}"
        for token, limit in self.floor.items():
            if weights.get(token, limit) < limit:
                del weights[token]
                yield f"floor {token}"

    def rewrite_query(self, vector: SparseVector) -> SparseVector:
        """Rewrite a query vector for an index with this policy: its tokens are replaced as in the documents.

        Muting and capping are not applied: they concern documents, and a muted token matches nothing anyway.
        """
        weights: dict[str, float] = {}
        for token, weight in vector:
            target = self.replacements.get(token, token)
            weights[target] = max(weight, weights.get(target, 0.0))
        return SparseVector.from_mapping(weights)


def _format_replacement(source: str, target: str) -> str:
    return f"{source} -> {target}"
