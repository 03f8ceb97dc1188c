"""Print the requirements of a wheel with some extras, one per line: `python requirements.py some.whl serve,tables`.

The image installs them first, in a separate layer, which remains cached if only the code changes.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name


def read_metadata(wheel: Path) -> str:
    """Return the METADATA of a wheel as text."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return archive.read(name).decode()


def resolve_requirements(metadata: str, extras: set[str]) -> set[str]:
    """Return the requirements that apply here, without markers and with the package's own extras resolved."""
    headers = HeaderParser().parsestr(metadata)
    own, given = canonicalize_name(headers["Name"]), [Requirement(line) for line in headers.get_all("Requires-Dist", [])]

    def resolve(wanted: set[str]) -> Iterator[str]:
        for requirement in given:
            if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in wanted | {""}):
                continue
            if canonicalize_name(requirement.name) == own:
                yield from resolve(requirement.extras)
            else:
                requirement.marker = None
                yield str(requirement)

    return set(resolve(extras))


if __name__ == "__main__":
    lines = resolve_requirements(read_metadata(Path(sys.argv[1])), set(sys.argv[2].split(",")))
    sys.stdout.write("".join(f"{line}\n" for line in sorted(lines)))
