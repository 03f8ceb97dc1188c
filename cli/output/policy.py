"""What a token policy does to an index, as lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .bars import escape_control
from .console import stdout

if TYPE_CHECKING:
    from stair_es.cluster.policy.manager import PolicyRunResult
    from stair_es.cluster.policy.preview import DocumentChange, PolicyPreview
    from stair_es.token_policy import TokenPolicy

_MAX_RULES = 20
_MAX_REASONS = 5


def print_policy_rules(policy: TokenPolicy) -> None:
    """Print the rules of a policy, one line per kind."""
    moves = [f"{source} -> {target}" for source, target in policy.replacements.items()]
    caps = [f"{word} {most:g}" for word, most in policy.cap.items()]
    for kind, rules in (("become", moves), ("mute", list(policy.mute)), ("cap", caps)):
        if rules:
            more = f", {len(rules) - _MAX_RULES:,} more" if len(rules) > _MAX_RULES else ""
            _print_line(f"  {kind:<7}{', '.join(map(escape_control, rules[:_MAX_RULES]))}{more}")


def print_policy_plan(policy: TokenPolicy, plan: PolicyPreview, samples: list[DocumentChange]) -> None:
    """Print how many documents would change, by which rules, and some of them."""
    examined = f"{plan.examined:,} documents with words of the policy" + (" or another policy" if plan.only_reverted else "")
    _print_line(f"policy {escape_control(policy.label)}: {plan.changed:,} of {examined} would change", "bold")
    counted = sorted(((rule, plan.rules[rule]) for rule in policy.rules), key=lambda pair: -pair[1])
    for rule, count in counted[:_MAX_RULES]:
        _print_line(f"  {count:>9,}  {escape_control(rule)}")
    if len(counted) > _MAX_RULES:
        _print_line(f"  and {len(counted) - _MAX_RULES:,} more rules (--json lists them)")
    if plan.only_reverted:
        _print_line(f"  {plan.only_reverted:>9,}  only lose the changes of another policy")
    if plan.emptied:
        _print_line(f"{plan.emptied:,} documents would have no word left: they are kept, but no query finds them", "yellow")
    for change in samples:
        _print_line(escape_control(change.uri or change.id))
        for word, (before, after) in change.token_changes.items():
            _print_line(f"  {escape_control(word):<14}{_format_weight(before)} -> {_format_weight(after)}")


def _format_weight(weight: float | None) -> str:
    return f"{'-':>6}" if weight is None else f"{weight:6.4f}"


def print_policy_counts(said: str, done: Mapping[str, PolicyRunResult]) -> None:
    """Print what was done, one line per index, and what failed."""
    for name, counts in done.items():
        _print_line(
            f"{said}: {counts.changed:,} changed, {counts.unchanged:,} unchanged, {len(counts.failed):,} failed"
            f" of {counts.examined:,} documents in {name}",
            "bold",
        )
        for id_, reason in list(counts.failed.items())[:_MAX_REASONS]:
            _print_line(f"  failed, {escape_control(id_)}: {escape_control(reason)}", "yellow")
        if len(counts.failed) > _MAX_REASONS:
            _print_line(f"  and {len(counts.failed) - _MAX_REASONS:,} more (--json lists them)", "yellow")


def build_policy_counts_json(done: Mapping[str, PolicyRunResult]) -> list[dict[str, Any]]:
    """Return the counts for JSON."""
    return [
        {
            "index": name,
            "examined": counts.examined,
            "changed": counts.changed,
            "unchanged": counts.unchanged,
            "failed": [{"id": id_, "reason": reason} for id_, reason in counts.failed.items()],
            "token_index": counts.token_index.to_json() if counts.token_index else None,
        }
        for name, counts in done.items()
    ]


def _print_line(text: str, style: str = "") -> None:
    stdout.print(text, markup=False, emoji=False, style=style)
