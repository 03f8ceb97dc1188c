"""Write the bill of materials of the wheel as CycloneDX JSON: all packages that `pip install stair-es` installs today.

::

    python scripts/dist_sbom.py dist    # writes dist/stair_es-VERSION.cdx.json

It fails if a package has no license that SPDX knows.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from dist_files import find_archives
from dist_installs import Environment, list_direct_requirements, read_metadata, run_uv
from packaging.utils import canonicalize_name

CYCLONEDX = "cyclonedx-bom>=7"
"""Runs in an environment of its own, because one of its packages slows the start of every process with Ray by a second."""

LICENSES = {
    "events": "BSD-3-Clause",  # LICENSE in the wheel; METADATA says BSD
    "flatbuffers": "Apache-2.0",  # METADATA: License: Apache 2.0
    "protobuf": "BSD-3-Clause",  # METADATA: License: 3-Clause BSD License
    "safetensors": "Apache-2.0",  # LICENSE in the wheel
    "tokenizers": "Apache-2.0",  # LICENSE in github.com/huggingface/tokenizers
}
"""Package -> SPDX expression, where the metadata has none; looked up on 2026-12-03."""


def complete_licenses(bom: dict[str, Any]) -> list[str]:
    """Give each component of a bill of materials an SPDX license, and return the names of those for which none is known.

    What the metadata states as SPDX wins, then `LICENSES`. Names such as "License :: OSI Approved :: BSD License" are removed.
    """
    unknown = []
    for component in bom["components"]:
        stated = component.get("licenses", [])
        spdx = [each for each in stated if "expression" in each or "id" in each.get("license", {})]
        known = LICENSES.get(canonicalize_name(component["name"]))
        if not spdx and known:
            spdx = [{"acknowledgement": "concluded", "expression": known}]
        if not spdx:
            unknown.append(component["name"])
        component["licenses"] = spdx or stated
    return unknown


def main() -> None:
    """Install the wheel without extras in a new environment, run cyclonedx-py on it, and complete the licenses.

    Raises:
        SystemExit: If the license of a package is unknown.
    """
    wheel, _ = find_archives(Path(sys.argv[1]))
    headers = read_metadata(wheel)
    out = wheel.parent / f"stair_es-{headers['Version']}.cdx.json"
    with tempfile.TemporaryDirectory() as folder:
        env = Environment.create(Path(folder, "env"), wheel, extras=(), resolution="highest", python=sys.executable)
        # cyclonedx-py reads the root component from PEP 621 metadata only, and the project's metadata is in setup.cfg
        root = Path(folder, "root.toml")
        values = {"name": headers["Name"], "version": headers["Version"], "license": headers["License-Expression"]}
        values |= {"dependencies": list(list_direct_requirements(headers, ()))}
        # strings and lists of strings are written alike in JSON and TOML
        root.write_text("\n".join(["[project]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]))
        options = ("--pyproject", str(root), "--output-reproducible", "--output-file", str(out))
        run_uv(
            "tool",
            "run",
            "--quiet",
            "--no-config",
            "--from",
            CYCLONEDX,
            "cyclonedx-py",
            "environment",
            *options,
            env.bin / "python",
        )
    bom = json.loads(out.read_text(encoding="utf-8"))
    unknown = complete_licenses(bom)
    out.write_text(json.dumps(bom, indent=2) + "\n", encoding="utf-8")
    if unknown:
        sys.exit(f"{out}: no SPDX license in the metadata of {', '.join(unknown)}: look them up, and add them to LICENSES")
    print(out)


if __name__ == "__main__":
    main()
