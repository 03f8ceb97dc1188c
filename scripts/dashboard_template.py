"""Edit the dashboard in OpenSearch Dashboards: write a draft for an index, and make the template of what the product exports.

The name of the index must stand for nothing else in the dashboard::

    python scripts/dashboard_template.py draft demo-album draft.ndjson   # import it, edit it, export it with related objects
    python scripts/dashboard_template.py read export.ndjson              # writes stair_es/dashboards/template.json
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stair_es.dashboards.bundle import EMBEDDED_JSON, UnfoldedObject, build_bundle, fit_objects, list_placeholders, to_ndjson
from stair_es.dashboards.index_info import DashboardSpec

TEMPLATE = Path(__file__).parents[1] / "stair_es" / "dashboards" / "template.json"


def main() -> None:
    """Write a draft or the template."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    draft = commands.add_parser("draft", help="write the whole dashboard of an index")
    draft.add_argument("index")
    draft.add_argument("file", type=Path)
    commands.add_parser("read", help="make the template of an export").add_argument("file", type=Path)
    args = parser.parse_args()
    if args.command == "draft":
        args.file.write_text(build_draft(args.index), encoding="utf-8")
    else:
        TEMPLATE.write_text(read_export(args.file.read_text(encoding="utf-8")), encoding="utf-8")


def build_draft(index: str) -> str:
    """Build the dashboard with everything that an index can have, as NDJSON."""
    return to_ndjson(build_bundle(_build_spec(index), "opensearch-dashboards"))


def _build_spec(index: str) -> DashboardSpec:
    return DashboardSpec(name=index, captions=True)


def read_export(export: str) -> str:
    """Return the template for an exported draft.

    Raises:
        ValueError: If it isn't the export of one draft, or a Vega spec isn't JSON: comments, for example.
    """
    lines = [json.loads(line) for line in export.splitlines()]
    objects = [_unfold_object(line) for line in lines if "attributes" in line]  # the last line counts the others
    [index] = [each["attributes"]["title"] for each in objects if re.fullmatch(r"stair-.*-images", each["id"])]
    spec = _build_spec(index)
    text = json.dumps(fit_objects(objects, spec, "opensearch-dashboards"), ensure_ascii=False, indent=1)
    for each in objects:
        if not each["id"].startswith(spec.build_id("")):  # made in the product
            slug = re.sub(r"[^a-z0-9]+", "-", each["attributes"]["title"].replace(f"[{index}]", "").lower()).strip("-")
            text = text.replace(each["id"], spec.build_id(slug))
    for placeholder, value in list_placeholders(spec).items():
        text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", placeholder, text)
    return f"{text}\n"


def _unfold_object(exported: Mapping[str, Any]) -> UnfoldedObject:
    return {
        "id": exported["id"],
        "type": exported["type"],
        "attributes": _unfold(exported["attributes"]),
        "references": exported["references"],
    }


def _unfold(value: Mapping[str, Any]) -> dict[str, Any]:
    unfolded = dict[str, Any]()
    for name, part in value.items():
        content = json.loads(part) if name in EMBEDDED_JSON or name == "spec" else part
        unfolded[name] = _unfold(content) if isinstance(content, Mapping) else content
    return unfolded


if __name__ == "__main__":
    main()
