"""Write the bill of materials of the wheel as CycloneDX JSON: all packages that `pip install stair-es` installs today.

::

    python scripts/dist_sbom.py dist    # writes dist/stair_es-VERSION.cdx.json
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from dist_files import find_archives
from dist_installs import Environment, list_direct_requirements, read_metadata, run_uv

CYCLONEDX = "cyclonedx-bom>=7"
"""Runs in an environment of its own, because one of its packages slows the start of every process with Ray by a second."""


def main() -> None:
    """Install the wheel without extras in a new environment, and run cyclonedx-py on it."""
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
    print(out)


if __name__ == "__main__":
    main()
