"""What a token policy does to an index, as lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .bars import visible
from .output import stdout

if TYPE_CHECKING:
    from stair_es.cluster.steer import Counts
    from stair_es.cluster.steer_plan import Change, Plan
    from stair_es.policy import WordPolicy

_MOST_RULES = 20
_MOST_REASONS = 5


def print_policy(policy: WordPolicy) -> None:
    """Print the rules of a policy, one line per kind."""
    moves = [f"{source} -> {target}" for source, target in policy.becomes.items()]
    caps = [f"{word} {most:g}" for word, most in policy.cap.items()]
    for kind, rules in (("become", moves), ("mute", list(policy.mute)), ("cap", caps)):
        if rules:
            more = f", {len(rules) - _MOST_RULES:,} more" if len(rules) > _MOST_RULES else ""
            _line(f"  {kind:<7}{', '.join(map(visible, rules[:_MOST_RULES]))}{more}")


def print_plan(policy: WordPolicy, plan: Plan, samples: list[Change]) -> None:
    """Print how many documents would change, by which rules, and some of them."""
    examined = f"{plan.examined:,} documents with its words" + (" or another policy" if plan.losing else "")
    _line(f"policy {visible(policy.label)}: {plan.changed:,} of {examined} would change", "bold")
    counted = sorted(((rule, plan.rules[rule]) for rule in policy.rules), key=lambda pair: -pair[1])
    for rule, count in counted[:_MOST_RULES]:
        _line(f"  {count:>9,}  {visible(rule)}")
    if len(counted) > _MOST_RULES:
        _line(f"  and {len(counted) - _MOST_RULES:,} more rules (--json lists them)")
    if plan.losing:
        _line(f"  {plan.losing:>9,}  only lose the changes of another policy")
    if plan.emptied:
        _line(f"{plan.emptied:,} documents would have no word left: they stay, but no query finds them", "yellow")
    for change in samples:
        _line(visible(change.uri or change.id))
        for word, (before, after) in change.words.items():
            _line(f"  {visible(word):<14}{_weight(before)} -> {_weight(after)}")


def _weight(weight: float | None) -> str:
    return f"{'-':>6}" if weight is None else f"{weight:6.4f}"


def print_counts(said: str, done: Mapping[str, Counts]) -> None:
    """Print what was done, one line per index, and what failed."""
    for name, counts in done.items():
        _line(
            f"{said}: {counts.changed:,} changed, {counts.unchanged:,} unchanged, {len(counts.failed):,} failed"
            f" of {counts.examined:,} documents in {name}",
            "bold",
        )
        for id_, reason in list(counts.failed.items())[:_MOST_REASONS]:
            _line(f"  failed, {visible(id_)}: {visible(reason)}", "yellow")
        if len(counts.failed) > _MOST_REASONS:
            _line(f"  and {len(counts.failed) - _MOST_REASONS:,} more (--json lists them)", "yellow")


def counts_json(done: Mapping[str, Counts]) -> list[dict[str, Any]]:
    """Return the counts for JSON."""
    return [
        {
            "index": name,
            "examined": counts.examined,
            "changed": counts.changed,
            "unchanged": counts.unchanged,
            "failed": [{"id": id_, "reason": reason} for id_, reason in counts.failed.items()],
            "words_index": counts.words.to_json() if counts.words else None,
        }
        for name, counts in done.items()
    ]


def _line(text: str, style: str = "") -> None:
    stdout.print(text, markup=False, emoji=False, style=style)
