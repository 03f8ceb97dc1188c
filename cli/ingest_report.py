"""What an ingest did, in lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .bars import visible
from .output import note, stdout

if TYPE_CHECKING:
    from stair_es.ingest.dry_run import DryRun
    from stair_es.ingest.report import Report


def print_report(report: Report) -> None:
    """The counts, the time of each stage, the index, and what a person may have to do."""
    values = report.to_dict()
    removed = f", {report.removed:,} removed" if report.removed else ""
    stdout.print(
        f"{report.seen:,} images: {report.written:,} written, {report.unchanged:,} unchanged, {report.dead:,} dead{removed}"
        f" in {report.seconds:.1f} s ({values['images_per_s']:,.1f} images/s)",
        style="bold",
    )
    stages = ", ".join(
        f"{stage} {values['stage_share'][stage]:.0%} ({seconds:.1f} s)"
        for stage, seconds in values["stage_seconds"].items()
        if seconds
    )
    idle = "" if report.encoder_idle is None else f"; encoders idle {report.encoder_idle:.0%} of the time"
    stdout.print(f"stages (summed over workers): {stages or 'none had work'}{idle}")
    if report.bulk_busy:
        stdout.print(
            f"bulk requests: {report.bulk_requests:,}, {report.bulk_busy:,} of them repeated (the cluster was busy or away)"
        )
    if 0 < report.documents < report.seen - report.dead:
        stdout.print(f"documents: {report.documents:,} (the same content is one document)")
    print_end(report, again=" (again: --retry FILE)")


def print_dry_run(would: DryRun, alias: str) -> None:
    """What would happen."""
    where = f"index {would.index}" if would.index else "a new index"
    stdout.print(f"dry run: {would.seen:,} images, for {where} behind alias {alias}", style="bold", markup=False)
    rows = (
        ("new", would.new, "would be encoded and written"),
        ("changed", would.changed, "would be encoded and written again"),
        ("unknown", would.unknown, "would be read to find out: no version is known, or ids go by content"),
        ("unchanged", would.unchanged, "would be skipped without a byte read"),
        ("unlisted", would.unlisted, "couldn't be listed: would be dead"),
        ("gone", would.gone, "would be removed"),
    )
    for name, count, what in rows:
        if count:
            stdout.print(f"  {name:10} {count:12,}  {what}")
    if would.words_index:
        fates = {"create": "would be made", "update": "would be brought in step", "delete": "would be deleted"}
        name = f" {would.words_index.index}" if would.words_index.index else ""
        stdout.print(f"words index{name}: {fates[would.words_index.would]}", markup=False)


def say_default_model(name: str) -> None:
    """Point to the models for real photographs, once, where nobody named a model."""
    note(
        f"{name} knows about 1,000 kinds of things. For real photographs: stair-es ingest ... --model photos "
        "(see stair-es models)"
    )


def print_end(report: Report, *, again: str = "") -> None:
    """Where the documents are now, and what became of the dead; `again` says how to try those once more."""
    stdout.print(f"index: {report.index} (alias {report.alias}, model {report.model})", markup=False)
    if report.swapped:
        gone = f"; deleted: {', '.join(report.pruned)}" if report.pruned else ""
        stdout.print(f"alias {report.alias} stands for the new index now{gone}", markup=False)
    if report.unfinished:
        stdout.print(report.unfinished, markup=False, emoji=False, style="yellow")
    for reason in report.dead_reasons:
        stdout.print(
            f"  dead in {reason.stage}, {reason.images:,}: {visible(reason.reason)}", markup=False, emoji=False, style="yellow"
        )
    if report.dead_letters:
        stdout.print(f"dead letters: {report.dead_letters}{again}", markup=False, emoji=False, style="yellow")
