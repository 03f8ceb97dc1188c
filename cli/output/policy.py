"""The effects of a token policy on an index, as lines of text."""

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
    replacements = [f"{source} -> {target}" for source, target in policy.replacements.items()]
    caps = [f"{token} {limit:g}" for token, limit in policy.cap.items()]
    for kind, rules in (("become", replacements), ("mute", list(policy.mute)), ("cap", caps)):
        if rules:
            more = f", {len(rules) - _MAX_RULES:,} more" if len(rules) > _MAX_RULES else ""
            _print_line(f"  {kind:<7}{', '.join(map(escape_control, rules[:_MAX_RULES]))}{more}")


def print_policy_plan(policy: TokenPolicy, plan: PolicyPreview, samples: list[DocumentChange]) -> None:
    """Print how many documents would change, by which rules, and some of them."""
    examined = f"{plan.examined:,} documents with words of the policy" + (" or another policy" if plan.only_reverted else "")
    _print_line(f"policy {escape_control(policy.label)}: {plan.changed:,} of {examined} would change", "bold")
    counts = sorted(((rule, plan.rules[rule]) for rule in policy.rules), key=lambda pair: -pair[1])
    for rule, count in counts[:_MAX_RULES]:
        _print_line(f"  {count:>9,}  {escape_control(rule)}")
    if len(counts) > _MAX_RULES:
        _print_line(f"  and {len(counts) - _MAX_RULES:,} more rules (--json lists them)")
    if plan.only_reverted:
        _print_line(f"  {plan.only_reverted:>9,}  only lose the changes of another policy")
    if plan.emptied:
        _print_line(f"{plan.emptied:,} documents would have no word left: they are kept, but no query finds them", "yellow")
    for change in samples:
        _print_line(escape_control(change.uri or change.id))
        for token, (before, after) in change.token_changes.items():
            _print_line(f"  {escape_control(token):<14}{_format_weight(before)} -> {_format_weight(after)}")


def _format_weight(weight: float | None) -> str:
    return f"{'-':>6}" if weight is None else f"{weight:6.4f}"


def print_policy_counts(verb: str, results: Mapping[str, PolicyRunResult]) -> None:
    """Print what was done, one line per index, and what failed."""
    for name, result in results.items():
        _print_line(
            f"{verb}: {result.changed:,} changed, {result.unchanged:,} unchanged, {len(result.failed):,} failed"
            f" of {result.examined:,} documents in {name}",
            "bold",
        )
        for id_, reason in list(result.failed.items())[:_MAX_REASONS]:
            _print_line(f"  failed, {escape_control(id_)}: {escape_control(reason)}", "yellow")
        if len(result.failed) > _MAX_REASONS:
            _print_line(f"  and {len(result.failed) - _MAX_REASONS:,} more (--json lists them)", "yellow")


def build_policy_counts_json(results: Mapping[str, PolicyRunResult]) -> list[dict[str, Any]]:
    """Return the counts for JSON."""
    return [
        {
            "index": name,
            "examined": result.examined,
            "changed": result.changed,
            "unchanged": result.unchanged,
            "failed": [{"id": id_, "reason": reason} for id_, reason in result.failed.items()],
            "token_index": result.token_index.to_json() if result.token_index else None,
        }
        for name, result in results.items()
    ]


def _print_line(text: str, style: str = "") -> None:
    stdout.print(text, markup=False, emoji=False, style=style)
