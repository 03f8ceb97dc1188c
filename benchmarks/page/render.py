"""Render the two pages as Markdown from the records alone. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from harness.result import Ratio, render_ratios

from stair_es.eval.tables import render_table

from .plan import Form, Run
from .record import Record

_TARGET = {"short": "make bench", "long": "make bench BENCH=long"}
_HEAD = """# Benchmarks

This page compares stair-es with other tools and with its own goals. Lost comparisons come first.
[All tables](reference/benchmarks.md) have the commands and what else was measured.

`{target}` runs all programs in [`benchmarks/`](../benchmarks) and writes both pages. `make bench ONLY="ingest sink"` updates some
sections only, and takes the others from the records in `build/bench`.

{form}

- A ratio is our value divided by the other one. Both were measured in the same run.
- "At most" means that lower is better.
- The goal of a comparison is to be as good as the other (1), unless the table shows another goal. A goal that was met is raised
  to what was measured, less the noise.
- Ratios are more meaningful than times and rates, which depend on the machine."""
_DETAILS_HEAD = """# All benchmarks

The tables of all runs that [Benchmarks](../benchmarks.md) sums up: it names the machine, and what a ratio is."""
_FORMS = {
    "short": "These are short runs, which take minutes on two cores. Sections whose sizes are too small to be meaningful say so.",
    "long": "These are long runs, which need a dedicated machine.",
}


def render_summary(records: Mapping[str, Record], runs: Sequence[Run], form: Form) -> str:
    """Render the page with the machine and all comparisons.

    Args:
        records: Records by the name of the run; some runs may have none yet.
        runs: Runs in the order of the page.
        form: Form of all records.
    """
    present = [records[run.name] for run in runs if run.name in records]
    parts = [_HEAD.format(target=_TARGET[form], form=_FORMS[form])]
    parts += [_render_machine(present)] if present else []
    parts += _render_comparisons(records, runs)
    return "\n\n".join(parts) + "\n"


def render_details(records: Mapping[str, Record], runs: Sequence[Run], form: Form) -> str:
    """Render the page with a section for each run. Arguments as of `render_summary`."""
    present = [records[run.name] for run in runs if run.name in records]
    parts = [_DETAILS_HEAD]
    for group, members in groupby(runs, key=lambda run: run.group):
        parts.append(f"## {group}")
        for run in members:
            parts += _render_section(run, records.get(run.name), present, form)
    return "\n\n".join(parts) + "\n"


def _render_machine(records: Sequence[Record]) -> str:
    """Render the machine of the newest record. The sections of other records name the differences."""
    records = [record for record in records if record.began] or records
    newest = max(records, key=lambda record: record.began)
    first = min(records, key=lambda record: record.began)
    facts = newest.machine
    rows = [
        ("processor", f"{facts['processor']}, {facts['cores']} cores"),
        ("memory", facts["memory"]),
        ("GPU", facts["accelerator"]),
        ("system", facts["system"]),
        ("date", first.began if first.began == newest.began else f"{first.began} to {newest.began} (UTC)"),
        ("load at the start and at the end", f"{first.load[0]:.1f}, {newest.load[1]:.1f}"),
        ("versions", ", ".join(f"{name} {number}" for name, number in facts["versions"].items())),
        ("commit", facts["commit"]),
        ("total time", f"{sum(record.seconds for record in records) / 60:.0f} min"),
    ]
    # A run begins with the load of the run before it, so the quietest start tells what other programs did.
    busy = min(record.load[0] for record in records) > facts["cores"] / 2
    note = "\n\n**Other programs were running at the same time: the figures are unreliable.**" if busy else ""
    return f"## Machine\n\n{render_table(('property', 'value'), rows)}{note}"


def _render_comparisons(records: Mapping[str, Record], runs: Sequence[Run]) -> Iterator[str]:
    """Render the comparisons (lost ones first) and the runs that failed or are missing."""
    ratios = [ratio for run in runs if not run.smoke for ratio in _get_ratios(records.get(run.name))]
    lost, won = ([ratio for ratio in ratios if ratio.is_met == met] for met in (False, True))
    silent = [run for run in runs if run.name not in records or records[run.name].status != "done"]
    yield "## Summary"
    yield f"Of {len(ratios)} comparisons and goals, {len(won)} are won or met, and **{len(lost)} are lost or missed**."
    if silent:
        yield "\n".join(
            f"- **{_get_status(records.get(run.name))}**: [{run.name}](reference/benchmarks.md#{run.name})" for run in silent
        )
    if lost:
        yield f"### Lost comparisons and missed goals\n\n{render_ratios(lost)}"
    if won:
        yield f"### Won comparisons and met goals\n\n{render_ratios(won)}"


def _get_ratios(record: Record | None) -> Sequence[Ratio]:
    return record.result.ratios if record and record.result else ()


def _get_status(record: Record | None) -> str:
    return record.status if record else "not run"


def _render_section(run: Run, record: Record | None, all_records: Sequence[Record], form: Form) -> Iterator[str]:
    yield f"### {run.name}"
    yield f"{run.shows}."
    if record is None:
        yield f"**Not run yet**: `python {run.build_command(form)}`"
        return
    yield f"`python {record.command}`"
    if record.began:
        load = f"load {record.load[0]:.1f} to {record.load[1]:.1f}"
        yield f"{record.began}, {record.seconds:.0f} s, {load}{_describe_differences(record, all_records)}"
    if record.status != "done":
        yield f"**{record.status.capitalize()}**: {record.reason}"
    if record.result:
        if run.smoke and form == "short":
            yield f"**The short run only shows that the benchmark works**: {run.smoke}."
        yield record.result.to_markdown(level=4)


def _describe_differences(record: Record, records: Sequence[Record]) -> str:
    """Describe how machine and versions differ from the table of the page."""
    head = max(records, key=lambda each: each.began).machine
    names = ("processor", "cores", "memory", "accelerator", "system", "commit")
    apart = [f"{name} {record.machine[name]}" for name in names if record.machine[name] != head[name]]
    versions = record.machine["versions"]
    apart += [f"{name} {number}" for name, number in versions.items() if head["versions"].get(name) != number]
    return f"; differs from the newest run: {', '.join(apart)}" if apart else ""
