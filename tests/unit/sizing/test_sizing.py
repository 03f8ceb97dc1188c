"""Index sizing: the arithmetic, the sources of its numbers, and the guide's table."""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from support.commands import CommandRunner
from support.errors import expect_error
from support.markdown import read_table_rows

from stair_es.errors import UsageError
from stair_es.sizing import INPUT_TEXTS, SizingInputs, SizingPlan, estimate_resources, make_sizing_plan

ROOT = Path(__file__).parents[3]
MILLION = 1_000_000
RUNNER = CommandRunner({}, "plan")


def build_plan(images: int, **inputs: Any) -> SizingPlan:  # noqa: ANN401  inputs of any type
    return make_sizing_plan(SizingInputs(images=images, **inputs), inputs)


@pytest.fixture
def fix_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums that stay when the times of queries and the bytes of documents are measured again."""
    measured = {
        "QUERY_BASE_MS": 0.3,
        "QUERY_POSTING_MS": 1.0,
        "POSTINGS": {"text": 3.6 / 36 / 38, "image": 12.5 / 38 / 38},
        "BARE_BYTES": 577,
        "TOKEN_BYTES": 10,
        "HOT_BYTES": 167,
        "HOT_TOKEN_BYTES": 1,
    }
    for name, value in measured.items():
        monkeypatch.setattr(f"stair_es.sizing.{name}", value)


def get_value(plan: SizingPlan, name: str) -> float:
    return next(each.value for each in (*plan.inputs, *plan.results) if each.name == name)


def test_no_images_need_an_index_all_the_same() -> None:
    needs = estimate_resources(SizingInputs(images=0))
    assert (needs.shards, needs.nodes, needs.primary_gb, needs.encode_h, needs.write_h) == (1, 2, 0, 0, 0)


def test_one_image_needs_no_more() -> None:
    one = estimate_resources(SizingInputs(images=1, replicas=0))
    assert (one.shards, one.nodes) == (1, 1)
    assert one.shard_ms == 0.7
    texts = [each.text for each in build_plan(1).results if each.name in ("primary_gb", "write_hours")]
    assert texts == ["under 0.001 GB", "under 0.001 min"]


def test_absurdly_many_images_are_still_counted() -> None:
    plan = build_plan(10**15)
    assert get_value(plan, "shards") == math.ceil(10**15 * get_value(plan, "bytes_per_document") / 30 / 10**9)
    assert any("1,024 shards" in remark for remark in plan.remarks)
    assert not re.search(r"\d[eE]\+", str(plan))  # people read no exponents


@pytest.mark.parametrize(
    ("inputs", "shards"),
    [
        ({"bytes_per_document": 3000, "shard_gb": 30}, 10),  # 300 GB
        ({"bytes_per_document": 3001, "shard_gb": 30}, 11),
        ({"bytes_per_document": 30, "shard_images": 25 * MILLION}, 4),
        ({"bytes_per_document": 30, "shard_images": 2_147_483_519, "node_memory_gb": 64, "queries_per_s": 1}, 1),
    ],
)
def test_bytes_and_images_bound_a_shard(inputs: dict[str, float], shards: int) -> None:
    assert get_value(build_plan(100 * MILLION, **inputs), "shards") == shards


@pytest.mark.usefixtures("fix_measurements")
@pytest.mark.parametrize(
    ("inputs", "nodes", "decisive"),
    [
        ({"node_disk_gb": 100}, 56, "disk"),  # 1,183 GB, two copies, two indices, 85 of each 100 GB
        ({"node_disk_gb": 100, "rebuild": False}, 28, "disk"),
        ({"node_disk_gb": 100, "rebuild": False, "replicas": 0}, 14, "disk"),
        ({"node_disk_gb": 9999, "node_memory_gb": 8}, 11, "memory"),  # 41 GB of postings, half of each 8 GB
        ({"node_disk_gb": 9999, "node_memory_gb": 128}, 2, "copies"),
        ({"node_disk_gb": 9999, "node_memory_gb": 128, "queries_per_s": 100}, 10, "cores"),  # 40 shards of 9.75 ms
        ({"node_disk_gb": 9999, "node_memory_gb": 128, "replicas": 3}, 4, "copies"),
    ],
)
def test_the_scarcest_resource_decides_the_number_of_nodes(inputs: dict[str, float], nodes: int, decisive: str) -> None:
    plan = build_plan(100 * MILLION, **inputs)
    assert get_value(plan, "nodes") == nodes
    text = next(each.origin for each in plan.results if each.name == "nodes")
    assert f"{decisive} {nodes}" in text


@pytest.mark.usefixtures("fix_measurements")
@pytest.mark.parametrize(
    ("inputs", "shards", "nodes"),
    [
        ({"images": 10 * MILLION, "queries_per_s": 1000}, 5, 10),  # two shards would be enough for the bytes
        ({"images": 10 * MILLION, "queries_per_s": 1000, "replicas": 0}, 10, 10),
        ({"images": 10 * MILLION, "queries_per_s": 1000, "replicas": 4}, 4, 10),
        ({"images": MILLION, "node_disk_gb": 6}, 5, 10),  # 11.8 GB fit on no disk
        ({"images": 100 * MILLION, "node_disk_gb": 9999, "node_memory_gb": 1}, 41, 82),
    ],
)
def test_every_node_has_a_shard(inputs: dict[str, Any], shards: int, nodes: int) -> None:
    needs = estimate_resources(SizingInputs(**inputs))
    assert (needs.shards, needs.nodes) == (shards, nodes)
    assert needs.shard_ms == pytest.approx(3.9 * inputs["images"] / shards / 1e6)
    text = next(each.origin for each in make_sizing_plan(SizingInputs(**inputs)).results if each.name == "shards")
    assert text.endswith("per node") == (shards > needs.shards_by_size)


@pytest.mark.parametrize("images", [0, 1, 1000, 999_999, 33 * MILLION, 10**12])
@pytest.mark.parametrize("replicas", [0, 1, 4])
@pytest.mark.parametrize("rebuild", [False, True])
def test_no_node_is_idle_and_no_shard_larger_than_a_disk(images: int, replicas: int, rebuild: bool) -> None:
    for disk_gb, memory_gb, queries_per_s, cores in product((0.5, 7, 500), (0.3, 32), (0, 3, 770, 5000), (1, 3, 64)):
        inputs = SizingInputs(
            images=images,
            replicas=replicas,
            rebuild=rebuild,
            node_disk_gb=disk_gb,
            node_memory_gb=memory_gb,
            queries_per_s=queries_per_s,
            node_cores=cores,
        )
        if 0.0014 * queries_per_s / cores > 1 + replicas:  # cores that a request to one shard keeps half busy
            with expect_error("replicas-too-few"):
                estimate_resources(inputs)
            continue
        needs = estimate_resources(inputs)
        assert needs.nodes <= (1 + replicas) * needs.shards
        assert needs.primary_gb / needs.shards * (1 + rebuild) <= disk_gb * 0.85 * (1 + 1e-9)


def test_high_query_rates_need_replicas() -> None:
    with expect_error("replicas-too-few") as caught:
        estimate_resources(SizingInputs(images=MILLION, queries_per_s=20_000))
    assert ("--replicas 1" in caught.value.message, "20,000" in caught.value.message) == (True, True)
    assert "--replicas 3" in caught.value.remedy
    needs = estimate_resources(SizingInputs(images=MILLION, queries_per_s=20_000, replicas=3))
    assert needs.nodes <= 4 * needs.shards


@pytest.mark.parametrize(("memory_gb", "heap_gb"), [(16, 8), (62, 31), (256, 31)])
def test_a_heap_is_half_the_memory_and_never_huge(memory_gb: float, heap_gb: float) -> None:
    assert get_value(build_plan(1, node_memory_gb=memory_gb), "heap_gb") == heap_gb


@pytest.mark.usefixtures("fix_measurements")
def test_query_cost_depends_on_tokens_and_shard_size() -> None:
    assert get_value(build_plan(5 * MILLION, shard_gb=60), "shard_ms") == pytest.approx(5 * 3.9)
    assert get_value(build_plan(5 * MILLION, shard_gb=60, query_kind="image"), "shard_ms") == pytest.approx(5 * 12.8)
    assert get_value(build_plan(5 * MILLION, shard_gb=60, query_kind="image", query_ms=2), "shard_ms") == pytest.approx(10)
    twice = {"tokens_per_image": 76, "shard_gb": 90}
    assert get_value(build_plan(5 * MILLION, **twice), "shard_ms") == pytest.approx(5 * 7.5)
    assert get_value(build_plan(5 * MILLION, tokens_per_query=12, **twice), "shard_ms") == pytest.approx(5 * 2.7)
    assert get_value(build_plan(5 * MILLION, query_kind="image", **twice), "shard_ms") == pytest.approx(5 * 50.3)
    assert get_value(build_plan(5 * MILLION, query_kind="image", **twice), "tokens_per_query") == 76
    assert get_value(build_plan(5 * MILLION, queries_per_s=0), "cores") == 0


def test_hours_and_money() -> None:
    prices = {"node_price_per_hour": 0.5, "encoder_price_per_hour": 2}
    plan = build_plan(36 * MILLION, encoder_images_per_s=500, encoders=4, node_disk_gb=5000, **prices)
    assert get_value(plan, "encode_hours") == 5
    assert get_value(plan, "encode_cost") == 40
    assert get_value(plan, "month_cost") == 2 * 0.5 * 730
    assert get_value(plan, "write_hours") == pytest.approx(36e6 * 2 / 9910 / 2 / 3600)
    assert get_value(plan, "load_hours") == 5
    quick = build_plan(36 * MILLION, encoder_images_per_s=1e6)
    assert get_value(quick, "load_hours") == get_value(quick, "write_hours")
    assert any("--no-replicas-while-building" in remark for remark in quick.remarks)


@pytest.mark.parametrize(
    ("replicas", "images", "text"),
    [
        (0, MILLION, ["without replicas", "at least three"]),
        (0, 1000 * MILLION, ["without replicas"]),  # twenty nodes, and the loss of any loses images
        (1, MILLION, ["at least three"]),
        (1, 1000 * MILLION, []),
        (2, MILLION, []),
    ],
)
def test_the_effect_of_losing_a_node_is_reported(replicas: int, images: int, text: list[str]) -> None:
    remarks = build_plan(images, replicas=replicas).remarks
    assert len(remarks) == len(text)
    assert all(words in remark for words, remark in zip(text, remarks, strict=True))


def test_no_price_is_invented() -> None:
    assert "cost" not in str(build_plan(MILLION).to_dict())


@pytest.mark.parametrize(
    ("inputs", "option"),
    [
        ({"images": -1}, "--images"),
        ({"images": 1, "bytes_per_document": 0}, "--bytes-per-document"),
        ({"images": 1, "shard_gb": -30}, "--shard-gb"),
        ({"images": 1, "encoders": 0}, "--encoders"),
        ({"images": 1, "node_disk_gb": float("nan")}, "--node-disk-gb"),
        ({"images": 1, "encoder_images_per_s": float("inf")}, "--encoder-images-per-s"),
        ({"images": 1, "replicas": -1}, "--replicas"),
        ({"images": 1, "node_price_per_hour": -0.5}, "--node-price-per-hour"),
        ({"images": 1, "shard_images": 2_147_483_520}, "--shard-images"),
    ],
)
def test_impossible_numbers_are_rejected_by_option(inputs: dict[str, Any], option: str) -> None:
    with pytest.raises(UsageError, match=option) as caught:
        SizingInputs(**inputs)
    assert caught.value.remedy


def test_each_number_has_its_origin() -> None:
    plan = build_plan(MILLION, replicas=1, shard_gb=30)  # as by default, but given
    origins = {each.name: each.origin for each in plan.inputs}
    assert origins["images"] == origins["replicas"] == origins["shard_gb"] == "given"
    measured = {name for name, origin in origins.items() if origin.startswith("measured: ")}
    assert measured == {"encoder_images_per_s", "node_docs_per_s", "bytes_per_document", "tokens_per_image", "tokens_per_query"}
    assert all(each.origin for each in plan.results)
    without_default = {"images", "query_kind", "node_price_per_hour", "encoder_price_per_hour"}
    documented = {name for name, (_, _, origin) in INPUT_TEXTS.items() if origin}
    assert documented == {each.name for each in fields(SizingInputs)} - without_default


def test_measured_values_have_a_benchmark() -> None:
    text = json.dumps(build_plan(MILLION).to_dict())
    programs = set(re.findall(r"benchmarks/\w+\.py", text))
    assert len(programs) >= 4
    assert all((ROOT / program).is_file() for program in programs)


def test_the_command_prints_all_of_it() -> None:
    output = RUNNER.read_output("--images", "1000000", "--replicas", "0")
    for figure in (*build_plan(MILLION, replicas=0).inputs, *build_plan(MILLION, replicas=0).results):
        cells = map(re.escape, (figure.label, figure.text, figure.origin))
        assert re.search(f"^  {' +'.join(cells)}$", output, re.MULTILINE)
    assert "at least three" in output


def test_the_command_as_json() -> None:
    values = RUNNER.read_json("--images", "100000000", "--query-kind", "image")
    assert values == json.loads(json.dumps(build_plan(100 * MILLION, query_kind="image").to_dict()))


def test_every_input_is_an_option() -> None:
    inputs: dict[str, Any] = {
        each.name: "image" if each.name == "query_kind" else number for number, each in enumerate(fields(SizingInputs), start=3)
    }
    inputs |= {"images": 5 * MILLION, "rebuild": False, "replicas": 0}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in inputs.items() if name != "rebuild"]
    plan = make_sizing_plan(SizingInputs(**inputs), inputs)
    assert RUNNER.read_json(*flags, "--no-rebuild") == json.loads(json.dumps(plan.to_dict()))
    assert {each.origin for each in plan.inputs} == {"given"}


def test_the_command_rejects_impossible_values() -> None:
    assert RUNNER.read_error("--images", "5", "--shard-gb", "0").code == "invalid-sizing-input"
    assert RUNNER.run().exit_code == 2


def test_help_shows_the_defaults() -> None:
    shown = RUNNER.read_output("--help", COLUMNS="200", TERM="dumb")
    texts, images = build_plan(1), build_plan(1, query_kind="image")
    query_ms = f"{get_value(texts, 'query_ms')} for text or {get_value(images, 'query_ms')} for image"
    for default in ("35.3", "9,910", "10,000,000", f"{get_value(texts, 'bytes_per_document'):,}", query_ms):
        assert re.search(rf"\[default: \(?{re.escape(default)}[),\]]", shown)


def test_guide_table_matches_the_command() -> None:
    """Rows of the table in docs/sizing.md that begin with the label of a result."""
    rows = read_table_rows((ROOT / "docs" / "sizing.md").read_text(encoding="utf-8"))
    [head] = [row for row in rows if row[0] == "images" and "1,000,000" in row[1]]
    plans = [build_plan(int(cell.replace(",", "")), node_price_per_hour=0.5) for cell in head[1:]]
    labels = {each.label: each.name for each in plans[0].results}
    shown = {row[0]: row[1:] for row in rows if row[0] in labels and len(row) == len(head)}
    assert {labels[label] for label in shown} >= {"shards", "nodes", "stored_gb", "hot_gb", "load_hours", "month_cost"}
    for label, cells in shown.items():
        assert cells == [next(each.text for each in plan.results if each.label == label) for plan in plans]
