"""Write the bill of materials of the wheel: what `pip install stair-es` brings today, as CycloneDX JSON.

::

    python scripts/dist_sbom.py dist    # writes dist/stair_es-VERSION.cdx.json
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from dist_files import find_wheel_and_sdist
from dist_installs import Environment, list_direct_requirements, read_metadata, run_uv

CYCLONEDX = "cyclonedx-bom>=7"
"""In an environment of its own: it brings a grammar that takes each process with Ray another second to import."""


def main() -> None:
    """Install the wheel alone in a new environment, and let cyclonedx-py read it."""
    wheel, _ = find_wheel_and_sdist(Path(sys.argv[1]))
    about = read_metadata(wheel)
    out = wheel.parent / f"stair_es-{about['Version']}.cdx.json"
    with tempfile.TemporaryDirectory() as folder:
        made = Environment.make(Path(folder, "env"), wheel, extras=(), resolution="highest", python=sys.executable)
        # the root of the bill; cyclonedx-py takes it from PEP 621 only, and the project's own is in setup.cfg
        root = Path(folder, "root.toml")
        values = {"name": about["Name"], "version": about["Version"], "license": about["License-Expression"]}
        values |= {"dependencies": list(list_direct_requirements(about, ()))}
        # JSON's strings and lists of strings are TOML's
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
            made.bin / "python",
        )
    print(out)


if __name__ == "__main__":
    main()
