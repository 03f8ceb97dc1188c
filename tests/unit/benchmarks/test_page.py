"""The pages of all benchmarks: made of the records alone, complete, with the losses."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from support.benchmarks import BENCHMARKS, import_benchmark
from support.markdown import read_table_rows

bench = import_benchmark("bench")
inputs = import_benchmark("page.inputs")
plan = import_benchmark("page.plan")
record = import_benchmark("page.record")
render = import_benchmark("page.render")
result = import_benchmark("harness.result")

MACHINE: dict[str, Any] = {
    "processor": "Some CPU",
    "cores": 2,
    "memory": "23 GiB",
    "accelerator": "none",
    "system": "Linux",
    "versions": {"Python": "3.11.7", "numpy": "2.4.6"},
    "commit": "abc1234",
}


def build_ratio(value: float, **fields: Any) -> Any:  # noqa: ANN401  of a module that is found at run time
    return result.Ratio(what="indexing", against="raw", value=value, **fields)


def build_record(name: str, *ratios: Any, **fields: Any) -> Any:  # noqa: ANN401
    table = result.ReportTable(head=("way", "docs/s"), rows=(("ours", "4,200"),))
    values = {
        "name": name,
        "command": f"benchmarks/{name}.py --docs 5",
        "status": "done",
        "began": "2026-11-25 10:00",
        "seconds": 61.0,
        "load": (0.1, 1.9),
        "machine": MACHINE,
        "result": result.Result(about="five documents", tables=(table,), ratios=ratios, figures={"all": [1.5]}),
        **fields,
    }
    return record.Record(**values)


def render_page(*records: Any) -> str:  # noqa: ANN401
    """Render both pages, as one text."""
    values = {each.name: each for each in records}, plan.RUNS, "short"
    return str(render.render_summary(*values)) + str(render.render_details(*values))


def get_section(page: str, heading: str) -> str:
    return page.partition(f"\n{heading}\n")[2].partition("\n#")[0]


def read_counts(page: str) -> list[str]:
    """Return the numbers of all comparisons, of those that are won and of those that are lost."""
    return re.findall(r"\d+", get_section(page, "## Summary").strip().splitlines()[0])


@pytest.mark.parametrize(
    ("value", "fields", "verdict"),
    [
        (1.0, {}, "ahead"),
        (0.98, {}, "**behind**"),
        (0.996, {}, "ahead"),  # it is printed as 1.00
        (0.8, {"at_most": True}, "ahead"),
        (1.2, {"at_most": True}, "**behind**"),
        (0.9, {"goal": 0.9}, "met"),
        (0.89, {"goal": 0.9}, "**missed**"),
        (1.4, {"goal": 1.5, "at_most": True}, "met"),
        (0.6, {"goal": 0.5, "at_most": True}, "**missed**"),
        (0, {"goal": 0, "at_most": True}, "met"),
    ],
)
def test_verdicts(value: float, fields: dict[str, Any], verdict: str) -> None:
    assert build_ratio(value, **fields).verdict == verdict


def test_losses_are_listed_first_and_all_counted() -> None:
    sink = build_record("sink", build_ratio(1.3), build_ratio(0.7))
    page = render_page(sink, build_record("ingest", build_ratio(0.95, goal=0.9)))
    assert read_counts(page) == ["3", "2", "1"]
    rows = [row for row in read_table_rows(page) if row[0] == "indexing"]
    assert rows[0] == ["indexing", "raw", "0.70", "at least 1", "**behind**"]
    assert sorted(row[2] for row in rows[1:3]) == ["0.95", "1.30"]
    facts = {row[0]: row[1] for row in read_table_rows(get_section(page, "## Machine"))}
    assert re.findall("Some CPU|[0-9]+", facts["processor"]) == ["Some CPU", "2"]
    assert (facts["date"], facts["commit"]) == ("2026-11-25 10:00", "abc1234")
    assert "Python 3.11.7" in facts["versions"]
    assert f"`python {sink.command}`" in get_section(page, "### sink")


def test_failed_and_skipped_runs_are_named_at_the_top() -> None:
    failed = build_record("sink", status="failed", reason="documents are missing", result=None)
    missing = build_record("quality", status="not run", reason="no apt-get", result=None, began="", seconds=0.0)
    page = render_page(failed, missing)
    lines = re.findall(r"- \*\*(.+)\*\*: \[.+\]\(reference/benchmarks.md#(.+)\)", get_section(page, "## Summary"))
    statuses = {name: status for status, name in lines}
    assert (statuses["sink"], statuses["quality"]) == ("failed", "not run")
    assert statuses["ingest"] == "not run"  # there is no record of it
    assert failed.reason in get_section(page, "### sink")
    assert missing.reason in get_section(page, "### quality")
    assert "`python benchmarks/ingest.py" in get_section(page, "### ingest")


def test_failed_checks_show_the_measured_values() -> None:
    page = render_page(build_record("faults", build_ratio(2, goal=0, at_most=True), status="failed", reason="exit status 1"))
    assert "five documents" in get_section(page, "### faults")
    assert read_counts(page) == ["1", "0", "1"]


def test_a_meaningless_short_form_is_marked_and_not_counted() -> None:
    page = render_page(build_record("recipes", build_ratio(3.0)))
    assert read_counts(page) == ["0", "0", "0"]
    [run] = [run for run in plan.RUNS if run.name == "recipes"]
    assert run.smoke in get_section(page, "### recipes")


def test_other_machines_are_reported() -> None:
    other = {**MACHINE, "processor": "Old CPU", "versions": {**MACHINE["versions"], "numpy": "1.26"}}
    page = render_page(build_record("sink"), build_record("ingest", machine=other, began="2026-11-24 09:00"))
    assert re.findall(r"Old CPU|numpy [\d.]+", get_section(page, "### ingest")) == ["Old CPU", "numpy 1.26"]
    assert "CPU" not in get_section(page, "### sink")
    [date] = [row[1] for row in read_table_rows(page) if row[0] == "date"]
    assert re.findall(r"\d+-\d+-\d+ \d+:\d+", date) == ["2026-11-24 09:00", "2026-11-25 10:00"]


def test_a_busy_machine_is_reported() -> None:
    assert "unreliable" not in render_page(build_record("sink"))
    busy = build_record("sink", load=(1.4, 2.0))
    assert "unreliable" in render_page(busy)
    assert "unreliable" in render_page(busy, build_record("quality", status="not run", began="", load=(0.0, 0.0)))
    assert "unreliable" not in render_page(busy, build_record("ingest", load=(0.4, 2.0)))


def test_records_round_trip(tmp_path: Path) -> None:
    saved = build_record("sink", build_ratio(0.7, goal=0.9))
    saved.write(tmp_path / "records" / "sink.json")
    assert record.Record.read(tmp_path / "records" / "sink.json") == saved


def test_every_benchmark_is_on_the_page() -> None:
    programs = {path.stem for path in BENCHMARKS.glob("*.py") if '__name__ == "__main__"' in path.read_text()}
    assert programs - {"bench"} == {run.script for run in plan.RUNS}
    assert len({run.name for run in plan.RUNS}) == len(plan.RUNS)


def test_reasons_name_no_folder_of_this_machine() -> None:
    reason = bench.strip_paths(f"{BENCHMARKS}/sink.py:\n{tempfile.gettempdir()}/stair-es-1/a.deb")
    assert reason.startswith("benchmarks/sink.py: ")
    assert "/" not in reason.partition(": ")[2]


@pytest.mark.parametrize(
    ("option", "fact"),
    [
        (f"--tuxpaint {plan.TUXPAINT}", r"apt-get.*tuxpaint-stamps-default"),
        (f"--images {plan.CLOTHES}", r"git.*clothing-dataset-small"),
        (f"--pictures {plan.TAUGHT}", r"git.*Caltech101"),
    ],
)
def test_unavailable_pictures_are_not_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, fact: str) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(inputs.InputUnavailable, match=fact):
        inputs.fetch_inputs(f"benchmarks/any.py {option}", tmp_path)
    inputs.fetch_inputs("benchmarks/listing.py", tmp_path)


def run_bench(folder: Path, records: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "bench.py"), "--render", "--out", str(folder), "--records", str(records)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_real_runs_are_kept_and_shown(tmp_path: Path) -> None:
    """The quickest benchmark, and one that fails."""
    runs = [
        plan.Run(name="listing", group="Ingest", shows="", script="listing", short="--entries 10 --tree-entries 10"),
        plan.Run(name="shell", group="Latency and overhead", shows="", script="shell", short="--rounds many"),
    ]
    good, bad = bench.run_benchmarks(runs, "short", tmp_path / "short")
    assert (good.status, bad.status) == ("done", "failed")
    assert all(fact in bad.reason for fact in ("exit status 2", "--rounds", "'many'"))
    done = run_bench(tmp_path, tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "reference" / "benchmarks.md").read_text()
    assert ["jsonl", "10"] in [row[:2] for row in read_table_rows(get_section(page, "### listing"))]
    assert f"`python {good.command}`" in page
    assert bad.reason in get_section(page, "### shell")


def test_a_page_loses_no_section_for_want_of_a_record(tmp_path: Path) -> None:
    page = tmp_path / "reference" / "benchmarks.md"
    page.parent.mkdir()
    page.write_text("measured long ago")
    done = run_bench(tmp_path, tmp_path)
    assert done.returncode == 2
    assert all(run.name in done.stderr for run in plan.RUNS)
    assert page.read_text() == "measured long ago"
    page.unlink()
    assert run_bench(tmp_path, tmp_path).returncode == 0
    assert "not run" in (tmp_path / "benchmarks.md").read_text()
