"""Filter controls: a panel in OpenSearch Dashboards, a bar above the panels in Kibana. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stair_es.dashboards.corpus import Corpus
from stair_es.dashboards.objects import SavedObject, packed, reference, visualization


@dataclass(frozen=True, kw_only=True)
class Control:
    """A list of the values of a field to choose from."""

    field: str
    label: str


def controls(corpus: Corpus) -> tuple[Control, ...]:
    """Return the controls of a dashboard: fields that both indices have, since the products apply each filter to every panel."""
    last = Control(field="model", label="Model") if corpus.companion else Control(field="format", label="Format")
    colours = (Control(field="colours", label="Colour"),) if corpus.colours else ()
    return (
        Control(field="top_tokens", label="Word"),
        *colours,
        Control(field="uri", label="Image"),
        Control(field="source", label="Source"),
        last,
    )


def control_panel(id_: str, title: str, chosen: Sequence[Control], pattern: str) -> SavedObject:
    """Build the controls panel of OpenSearch Dashboards."""
    options = {"type": "terms", "multiselect": True, "dynamicOptions": True, "size": 20, "order": "desc"}
    fields = [
        {
            "id": f"control-{place}",
            "fieldName": control.field,
            "parent": "",
            "label": control.label,
            "type": "list",
            "options": options,
            "indexPatternRefName": f"control_{place}_index_pattern",
        }
        for place, control in enumerate(chosen)
    ]
    params = {"controls": fields, "updateFiltersOnChange": True, "useTimeFilter": False, "pinFilters": False}
    made = visualization(id_, title, {"type": "input_control_vis", "params": params, "aggs": []})
    made["references"] = [reference(f"control_{place}_index_pattern", "index-pattern", pattern) for place in range(len(chosen))]
    return made


def control_group(chosen: Sequence[Control], pattern: str) -> tuple[Mapping[str, Any], list[dict[str, str]]]:
    """Build the attributes and references of a Kibana dashboard with these controls."""
    panels = {
        f"control-{place}": {
            "order": place,
            "width": "medium",
            "grow": True,
            "type": "optionsListControl",
            "explicitInput": {
                "id": f"control-{place}",
                "fieldName": control.field,
                "title": control.label,
                "selectedOptions": [],
                "enhancements": {},
            },
        }
        for place, control in enumerate(chosen)
    }
    ignored = {"ignoreFilters": False, "ignoreQuery": False, "ignoreTimerange": False, "ignoreValidations": False}
    group = {
        "controlStyle": "oneLine",
        "chainingSystem": "HIERARCHICAL",
        "ignoreParentSettingsJSON": packed(ignored),
        "panelsJSON": packed(panels),
    }
    references = [reference(f"controlGroup_{id_}:optionsListDataView", "index-pattern", pattern) for id_ in panels]
    return {"controlGroupInput": group}, references
