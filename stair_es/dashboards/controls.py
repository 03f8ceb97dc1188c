"""Filter controls: a panel in OpenSearch Dashboards, a bar above the panels in Kibana. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stair_es.dashboards.index_info import DashboardSpec
from stair_es.dashboards.saved_objects import SavedObject, build_reference, build_visualization, dump_compact_json


@dataclass(frozen=True, kw_only=True)
class FilterControl:
    """A list of the values of a field to choose from."""

    field: str
    label: str


def list_controls(spec: DashboardSpec) -> tuple[FilterControl, ...]:
    """Return the controls of a dashboard: fields that both indices have, since the products apply each filter to every panel."""
    last = FilterControl(field="model", label="Model") if spec.has_token_index else FilterControl(field="format", label="Format")
    colors = (FilterControl(field="colors", label="Color"),) if spec.colors else ()
    return (
        FilterControl(field="top_tokens", label="Word"),
        *colors,
        FilterControl(field=spec.name_field, label="Image"),
        FilterControl(field="source", label="Source"),
        last,
    )


def build_control_panel(id_: str, title: str, controls: Sequence[FilterControl], pattern: str) -> SavedObject:
    """Build the controls panel of OpenSearch Dashboards."""
    options = {"type": "terms", "multiselect": True, "dynamicOptions": True, "size": 20, "order": "desc"}
    fields = [
        {
            "id": f"control-{number}",
            "fieldName": control.field,
            "parent": "",
            "label": control.label,
            "type": "list",
            "options": options,
            "indexPatternRefName": f"control_{number}_index_pattern",
        }
        for number, control in enumerate(controls)
    ]
    params = {"controls": fields, "updateFiltersOnChange": True, "useTimeFilter": False, "pinFilters": False}
    panel = build_visualization(id_, title, {"type": "input_control_vis", "params": params, "aggs": []})
    panel["references"] = [
        build_reference(f"control_{number}_index_pattern", "index-pattern", pattern) for number in range(len(controls))
    ]
    return panel


def build_control_group(controls: Sequence[FilterControl], pattern: str) -> tuple[Mapping[str, Any], list[dict[str, str]]]:
    """Build the attributes and references of a Kibana dashboard with these controls."""
    panels = {
        f"control-{number}": {
            "order": number,
            "width": "medium",
            "grow": True,
            "type": "optionsListControl",
            "explicitInput": {
                "id": f"control-{number}",
                "fieldName": control.field,
                "title": control.label,
                "selectedOptions": [],
                "enhancements": {},
            },
        }
        for number, control in enumerate(controls)
    }
    ignored = {"ignoreFilters": False, "ignoreQuery": False, "ignoreTimerange": False, "ignoreValidations": False}
    group = {
        "controlStyle": "oneLine",
        "chainingSystem": "HIERARCHICAL",
        "ignoreParentSettingsJSON": dump_compact_json(ignored),
        "panelsJSON": dump_compact_json(panels),
    }
    references = [build_reference(f"controlGroup_{id_}:optionsListDataView", "index-pattern", pattern) for id_ in panels]
    return {"controlGroupInput": group}, references
