"""The page of all benchmarks: made of the records alone, complete, with the losses."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
MACHINE = {
    "processor": "Some CPU",
    "cores": 2,
    "memory": "23 GiB",
    "accelerator": "none",
    "system": "Linux",
    "versions": {"Python": "3.11.7", "numpy": "2.4.6"},
    "commit": "abc1234",
}


@pytest.fixture(scope="module")
def bench() -> Iterator[dict[str, ModuleType]]:
    """The modules of benchmarks/."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield {
            name: importlib.import_module(name)
            for name in ("bench", "harness.result", "page.inputs", "page.plan", "page.record", "page.render")
        }
    finally:
        sys.path.pop(0)


def ratio(bench: dict[str, ModuleType], value: float, **more: Any) -> Any:  # noqa: ANN401  of a module that is found at run time
    return bench["harness.result"].Ratio(what="indexing", against="raw", value=value, **more)


def record(bench: dict[str, ModuleType], name: str, *ratios: Any, **more: Any) -> Any:  # noqa: ANN401
    table = bench["harness.result"].ReportTable(head=("way", "docs/s"), rows=(("ours", "4,200"),))
    values = {
        "name": name,
        "command": f"benchmarks/{name}.py --docs 5",
        "status": "done",
        "began": "2026-11-25 10:00",
        "seconds": 61.0,
        "load": (0.1, 1.9),
        "machine": MACHINE,
        "result": bench["harness.result"].Result(about="five documents", tables=(table,), ratios=ratios, figures={"all": [1.5]}),
        **more,
    }
    return bench["page.record"].Record(**values)


def render(bench: dict[str, ModuleType], *records: Any, form: str = "short") -> str:  # noqa: ANN401
    page: str = bench["page.render"].render_page({each.name: each for each in records}, bench["page.plan"].RUNS, form)
    return page


def section(page: str, heading: str) -> str:
    return page.partition(f"\n{heading}\n")[2].partition("\n#")[0]


@pytest.mark.parametrize(
    ("value", "more", "verdict"),
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
def test_verdicts(bench: dict[str, ModuleType], value: float, more: dict[str, Any], verdict: str) -> None:
    assert ratio(bench, value, **more).verdict == verdict


def test_losses_are_listed_first_and_all_counted(bench: dict[str, ModuleType]) -> None:
    page = render(
        bench, record(bench, "sink", ratio(bench, 0.7), ratio(bench, 1.3)), record(bench, "ingest", ratio(bench, 0.95, goal=0.9))
    )
    assert "Of 3 comparisons and goals, 2 are won or met, and **1 are lost or missed**." in page
    assert page.index("### Lost comparisons and missed goals") < page.index("### Won comparisons and met goals")
    assert "| 0.70     | at least 1 | **behind** |" in section(page, "### Lost comparisons and missed goals")
    assert "0.70" not in section(page, "### Won comparisons and met goals")
    for text in ("Some CPU, 2 cores", "2026-11-25 10:00", "Python 3.11.7", "abc1234", "`python benchmarks/sink.py --docs 5`"):
        assert text in page


def test_failed_and_skipped_runs_are_named_at_the_top(bench: dict[str, ModuleType]) -> None:
    failed = record(bench, "sink", status="failed", reason="exit status 1: documents are missing", result=None)
    missing = record(bench, "quality", status="not run", reason="apt-get isn't installed", result=None, began="", seconds=0.0)
    page = render(bench, failed, missing)
    glance = section(page, "## Summary")
    assert "- **failed**: [sink](#sink)" in glance
    assert "- **not run**: [quality](#quality)" in glance
    assert "- **not run**: [ingest](#ingest)" in glance  # there is no record of it
    assert "**Failed**: exit status 1: documents are missing" in section(page, "### sink")
    assert "**Not run**: apt-get isn't installed" in section(page, "### quality")
    assert "**Not run yet**: `python benchmarks/ingest.py" in section(page, "### ingest")


def test_failed_checks_show_the_measured_values(bench: dict[str, ModuleType]) -> None:
    page = render(bench, record(bench, "faults", ratio(bench, 2, goal=0, at_most=True), status="failed", reason="exit status 1"))
    assert "five documents" in section(page, "### faults")
    assert "**missed**" in section(page, "### Lost comparisons and missed goals")


def test_a_meaningless_short_form_is_marked_and_not_counted(bench: dict[str, ModuleType]) -> None:
    page = render(bench, record(bench, "recipes", ratio(bench, 3.0)))
    assert "Of 0 comparisons" in page
    assert "**The short run only shows that the benchmark works**" in section(page, "### recipes")


def test_other_machines_are_reported(bench: dict[str, ModuleType]) -> None:
    other = {**MACHINE, "processor": "Old CPU", "versions": {**MACHINE["versions"], "numpy": "1.26"}}  # type: ignore[dict-item]
    page = render(bench, record(bench, "sink"), record(bench, "ingest", machine=other, began="2026-11-24 09:00"))
    assert "differs from the table above: processor Old CPU, numpy 1.26" in section(page, "### ingest")
    assert "differs from" not in section(page, "### sink")
    assert "2026-11-24 09:00 to 2026-11-25 10:00 (UTC)" in page


def test_a_busy_machine_is_reported(bench: dict[str, ModuleType]) -> None:
    assert "unreliable" not in render(bench, record(bench, "sink"))
    assert "unreliable" in render(bench, record(bench, "sink", load=(1.4, 2.0)))


def test_records_round_trip(bench: dict[str, ModuleType], tmp_path: Path) -> None:
    saved = record(bench, "sink", ratio(bench, 0.7, goal=0.9))
    saved.write(tmp_path / "records" / "sink.json")
    assert bench["page.record"].Record.read(tmp_path / "records" / "sink.json") == saved


def test_every_benchmark_is_on_the_page(bench: dict[str, ModuleType]) -> None:
    programs = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if '__name__ == "__main__"' in path.read_text()}
    runs = bench["page.plan"].RUNS
    assert programs - {"bench"} == {run.script for run in runs}
    assert len({run.name for run in runs}) == len(runs)


def test_reasons_name_no_folder_of_this_machine(bench: dict[str, ModuleType]) -> None:
    reason = bench["bench"].strip_paths(
        f"can't read {ROOT}/benchmarks/sink.py:\n{bench['bench'].tempfile.gettempdir()}/stair-es-1/a.deb is broken"
    )
    assert reason == "can't read benchmarks/sink.py: a temporary file is broken"


def test_unavailable_pictures_are_not_a_failure(
    bench: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        bench["page.inputs"].InputUnavailable, match=r"apt-get isn't installed, but it is needed to fetch tuxpaint-stamps-default"
    ):
        bench["page.inputs"].fetch_inputs(f"benchmarks/query.py --tuxpaint {bench['page.plan'].TUXPAINT}", tmp_path)
    bench["page.inputs"].fetch_inputs("benchmarks/listing.py", tmp_path)


def test_real_runs_are_kept_and_shown(bench: dict[str, ModuleType], tmp_path: Path) -> None:
    """The quickest benchmark, and one that fails."""
    plan, folder = bench["page.plan"], tmp_path / "short"
    runs = [
        plan.Run(name="listing", group="Ingest", shows="", script="listing", short="--entries 10 --tree-entries 10"),
        plan.Run(name="shell", group="Latency and overhead", shows="", script="shell", short="--rounds many"),
    ]
    good, bad = bench["bench"].run_benchmarks(runs, "short", folder)
    assert (good.status, bad.status) == ("done", "failed")
    assert bad.reason == "exit status 2: shell.py: error: argument --rounds: invalid int value: 'many'"
    page = tmp_path / "benchmarks.md"
    command = [sys.executable, str(ROOT / "benchmarks" / "bench.py"), "--render", "--out", str(page), "--records", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "| jsonl   | 10      |" in section(page.read_text(), "### listing")
    assert "`python benchmarks/listing.py --entries 10 --tree-entries 10`" in page.read_text()
    assert bad.reason in section(page.read_text(), "### shell")


def test_a_page_loses_no_section_for_want_of_a_record(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("measured long ago")
    program = [sys.executable, str(ROOT / "benchmarks" / "bench.py"), "--render", "--records", str(tmp_path), "--out", str(page)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "would lose the sections of query, " in done.stderr
    assert page.read_text() == "measured long ago"
    page.unlink()
    subprocess.run(program, capture_output=True, check=True)
    assert "not run" in page.read_text()
