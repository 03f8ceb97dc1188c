"""The template of the dashboard survives the product: what it exports gives the same template, and edits are kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dashboard_template import TEMPLATE, build_draft, read_export
from support.dashboards.checks import find_errors

from stair_es.dashboards import bundle
from stair_es.dashboards.index_info import DashboardSpec

NEW_ID = "0b5f8d4e-1a2b-4c3d-9e8f-a1b2c3d4e5f6"


def export_objects(objects: list[dict[str, Any]]) -> str:
    """Write objects as OpenSearch Dashboards exports them: in another order, with metadata, and a summary."""
    stored = [{**each, "updated_at": "2026-11-29T12:00:00.000Z", "version": "WzEsMV0="} for each in reversed(objects)]
    summary = {"exportedCount": len(stored), "missingRefCount": 0, "missingReferences": []}
    return "".join(json.dumps(each) + "\n" for each in (*stored, summary))


def load_draft() -> list[dict[str, Any]]:
    return [json.loads(line) for line in build_draft("demo-album").splitlines()]


def change_attribute(each: dict[str, Any], attribute: str, change: Callable[[Any], object]) -> None:
    value = json.loads(each["attributes"][attribute])
    change(value)
    each["attributes"][attribute] = json.dumps(value)


def test_an_unchanged_export_gives_the_template() -> None:
    template = TEMPLATE.read_text(encoding="utf-8")
    exported, expected = json.loads(read_export(export_objects(load_draft()))), json.loads(template)
    assert {each["id"]: each for each in exported} == {each["id"]: each for each in expected}
    assert read_export(build_draft("demo-album")) == template
    assert all(placeholder in template for placeholder in bundle.list_placeholders(DashboardSpec(name="demo-album")))
    assert all("${INDEX}" in each["attributes"]["title"] for each in expected if each["type"] != "index-pattern")


def test_edits_and_new_panels_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    objects = load_draft()
    [bars] = [each for each in objects if each["id"].endswith("-bars")]
    change_attribute(bars, "visState", lambda state: state["aggs"][1]["params"].update(size=30))
    title = "Most frequent sources [demo-album]"
    new = json.loads(json.dumps({**bars, "id": NEW_ID}).replace("Most frequent words, counted [demo-album]", title))
    dashboard = objects[-1]
    place = {"x": 0, "y": 900, "w": 48, "h": 10, "i": NEW_ID}
    panel = {"version": "2.19.4", "panelIndex": NEW_ID, "gridData": place, "title": "Sources", "embeddableConfig": {}}
    change_attribute(dashboard, "panelsJSON", lambda panels: panels.append({**panel, "panelRefName": "panel_new"}))
    dashboard["references"].append({"name": "panel_new", "type": "visualization", "id": NEW_ID})
    changed = tmp_path / "template.json"
    changed.write_text(read_export(export_objects([*objects, new])), encoding="utf-8")
    monkeypatch.setattr(bundle, "files", lambda _: tmp_path)
    for has_token_index in (True, False):
        built = bundle.build_bundle(DashboardSpec(name="photos", has_token_index=has_token_index), "opensearch-dashboards")
        assert find_errors(built, "opensearch-dashboards") == []
        [edited] = [each for each in built if each["id"].endswith("-bars")]
        assert json.loads(edited["attributes"]["visState"])["aggs"][1]["params"]["size"] == 30
        assert built[-2]["id"] == DashboardSpec(name="photos").build_id("most-frequent-sources")
        assert json.loads(built[-1]["attributes"]["panelsJSON"])[-1]["title"] == "Sources"


def test_a_vega_spec_that_is_not_json_is_rejected() -> None:
    objects = load_draft()
    [chart] = [each for each in objects if each["id"].endswith("-together")]
    change_attribute(chart, "visState", lambda state: state["params"].update(spec="{mark: point}"))
    with pytest.raises(ValueError, match="Expecting property name"):
        read_export(export_objects(objects))
