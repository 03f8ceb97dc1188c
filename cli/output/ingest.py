"""The report of an ingest as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .bars import escape_control
from .console import print_notice, stdout

if TYPE_CHECKING:
    from stair_es.ingest.accounting.report import IngestReport
    from stair_es.ingest.dry_run import DryRunReport


_MAX_STALE_URIS = 20


def print_ingest_report(report: IngestReport, retry: str) -> None:
    """Print the counts, the time of each stage, the index, and what to do next."""
    values = report.to_dict()
    forgotten = f", {report.forgotten:,} forgotten" if report.forgotten else ""
    removed = f", {report.removed:,} removed" if report.removed else ""
    stdout.print(
        f"{report.seen:,} images: {report.written:,} written, {report.unchanged:,} unchanged, {report.failed:,} failed"
        f"{forgotten}{removed}"
        f" in {report.seconds:.1f} s ({values['images_per_s']:,.1f} images/s)",
        style="bold",
    )
    stages = ", ".join(
        f"{stage} {values['stage_share'][stage]:.0%} ({seconds:.1f} s)"
        for stage, seconds in values["stage_seconds"].items()
        if seconds
    )
    idle = "" if report.encoder_idle is None else f"; encoders idle {report.encoder_idle:.0%} of the time"
    start = "" if report.start_seconds is None else f"; first image written after {report.start_seconds:.1f} s"
    stdout.print(f"stages (summed over workers): {stages or 'none'}{idle}{start}")
    if report.bulk_retries:
        stdout.print(
            f"bulk requests: {report.bulk_requests:,}, {report.bulk_retries:,} of them retries"
            " (the cluster was busy or unreachable)"
        )
    if 0 < report.documents < report.seen - report.failed - report.forgotten:
        stdout.print(f"documents: {report.documents:,} (identical content is one document)")
    print_outcome(report)
    if report.dead_letters:
        stdout.print(f"retry them: {escape_control(retry)}", markup=False, emoji=False, style="yellow")


def print_dry_run(report: DryRunReport, alias: str) -> None:
    """Print what an ingest would do."""
    target = f"index {report.index}" if report.index else "a new index"
    stdout.print(f"dry run: {report.seen:,} images, for {target}, alias {alias}", style="bold", markup=False)
    rows = (
        ("new", report.new, "would be encoded and written"),
        ("changed", report.changed, "would be encoded and written again"),
        ("unknown", report.unknown, "would be read to compare: no version is known, or ids are content hashes"),
        ("unchanged", report.unchanged, "would be skipped without reading"),
        ("unlisted", report.unlisted, "couldn't be listed: would fail"),
        ("forgotten", report.forgotten, "would be left out: see stair-es forget"),
        ("stale", report.stale, "would be removed"),
    )
    for name, count, effect in rows:
        if count:
            stdout.print(f"  {name:10} {count:12,}  {effect}")
            if name == "stale":
                _print_stale_uris(report)
    if report.token_index:
        effects = {"create": "would be created", "update": "would be updated", "delete": "would be deleted"}
        name = f" {report.token_index.index}" if report.token_index.index else ""
        stdout.print(f"token index{name}: {effects[report.token_index.action]}", markup=False)


def _print_stale_uris(report: DryRunReport) -> None:
    for uri in report.stale_uris[:_MAX_STALE_URIS]:
        stdout.print(f"    {escape_control(uri)}", markup=False, emoji=False)
    if report.stale > _MAX_STALE_URIS:
        stdout.print(f"    and {report.stale - _MAX_STALE_URIS:,} more (--json has all of them)")


def note_default_model(name: str) -> None:
    """Point to the other models if no model was named."""
    print_notice(
        f"{name} knows about 1,000 kinds of things. Models that know more, and whether they were tested: stair-es models"
    )


def print_outcome(report: IngestReport) -> None:
    """Print the index, and the reasons of failed images."""
    alias = f"alias {report.alias}, " if report.alias != report.index else ""
    stdout.print(f"index: {report.index} ({alias}model {report.model})", markup=False)
    if report.swapped:
        deleted = f"; deleted: {', '.join(report.deleted_indices)}" if report.deleted_indices else ""
        stdout.print(f"alias {report.alias} now points to the new index{deleted}", markup=False)
    if report.not_swapped_reason:
        stdout.print(report.not_swapped_reason, markup=False, emoji=False, style="yellow")
    for line in _describe_failures(report):
        stdout.print(f"  {escape_control(line)}", markup=False, emoji=False, style="yellow")
    if report.dead_letters:
        stdout.print(f"dead letters: {report.dead_letters}", markup=False, emoji=False, style="yellow")


def _describe_failures(report: IngestReport) -> Iterator[str]:
    """Yield a line for each of the most frequent reasons, and the number of images with other ones."""
    for reason in report.failure_reasons:
        prefix = "such as " if reason.images > 1 else ""
        yield f"failed in {reason.stage}, {reason.images:,}: {reason.reason} ({prefix}{reason.example})"
    others = report.failed - sum(reason.images for reason in report.failure_reasons)
    if others:
        yield f"and {others:,} more for other reasons"
