"""The lock file of the embedded node: its jars with their hashes, and the modules that they form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

from stair_es.errors import ResourceError

_FORMAT = 1
_REMEDY = "The file comes with the package: reinstall stair-es, or rewrite it with tests/support/nodes/maven_locks.py."


@dataclass(frozen=True, kw_only=True)
class Jar:
    """One file of the distribution, pinned by its content."""

    group: str
    artifact: str
    version: str
    folder: str
    """Folder in the distribution: `lib` or `modules/<name>`."""
    sha256: str
    size_bytes: int

    @property
    def name(self) -> str:
        """Return the file's name: `lucene-core-10.4.0.jar`."""
        return f"{self.artifact}-{self.version}.jar"

    @property
    def path(self) -> str:
        """Return the file's path in the distribution, with forward slashes."""
        return f"{self.folder}/{self.name}"

    @property
    def coordinates(self) -> str:
        """Return `group:artifact:version`."""
        return f"{self.group}:{self.artifact}:{self.version}"


@dataclass(frozen=True, kw_only=True)
class NodeModule:
    """A module of the server and its descriptor."""

    name: str
    classname: str
    extends: tuple[str, ...] = ()
    """Modules whose classes are visible to this one."""

    def build_descriptor(self, opensearch: str) -> str:
        """Return the text of its `plugin-descriptor.properties`."""
        lines = [
            f"description={self.name}",
            f"version={opensearch}",
            f"name={self.name}",
            f"classname={self.classname}",
            "java.version=21",
            f"opensearch.version={opensearch}",
        ]
        if self.extends:
            lines.append(f"extended.plugins={','.join(self.extends)}")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, kw_only=True)
class NodeLock:
    """All parts of the embedded node."""

    opensearch: str
    modules: tuple[NodeModule, ...]
    jars: tuple[Jar, ...]

    @property
    def size_bytes(self) -> int:
        """Return the size of the download of a first start."""
        return sum({jar.coordinates: jar.size_bytes for jar in self.jars}.values())

    @property
    def digest(self) -> str:
        """Return a hash that changes with every jar and every descriptor."""
        descriptors = "".join(module.build_descriptor(self.opensearch) for module in self.modules)
        return hashlib.sha256((self.to_json() + descriptors).encode()).hexdigest()

    @property
    def folder(self) -> str:
        """Return the folder name of the unpacked distribution."""
        return f"opensearch-{self.opensearch}-{self.digest[:12]}"

    def to_json(self) -> str:
        """Return the text of the lock file, with one line per jar so that a diff shows what an update changes."""
        modules = [{"name": m.name, "classname": m.classname, "extends": list(m.extends)} for m in self.modules]
        jars = [
            {"maven": jar.coordinates, "folder": jar.folder, "sha256": jar.sha256, "size_bytes": jar.size_bytes}
            for jar in self.jars
        ]
        parts = ",\n".join(f'  "{key}": [\n{_format_rows(rows)}\n  ]' for key, rows in (("modules", modules), ("jars", jars)))
        return f'{{\n  "format": {_FORMAT},\n  "opensearch": {json.dumps(self.opensearch)},\n{parts}\n}}\n'

    @classmethod
    def from_json(cls, text: str) -> NodeLock:
        """Parse what `to_json` wrote.

        Raises:
            ResourceError: If it is not a lock file of this format, or names a path outside the distribution.
        """
        try:
            value = json.loads(text)
            if value["format"] != _FORMAT:
                raise ResourceError(
                    f"node lock file: format {value['format']!r} is unknown, expected {_FORMAT}",
                    _REMEDY,
                    code="invalid-node-lock",
                )
            return cls(
                opensearch=value["opensearch"],
                modules=tuple(
                    NodeModule(name=m["name"], classname=m["classname"], extends=tuple(m["extends"])) for m in value["modules"]
                ),
                jars=tuple(_parse_jar(row) for row in value["jars"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ResourceError(
                f"node lock file: malformed ({type(error).__name__}: {error})", _REMEDY, code="invalid-node-lock"
            ) from error


@cache
def load_node_lock() -> NodeLock:
    """Load the lock file of the package."""
    try:
        text = files("stair_es.embedded_node").joinpath("lock.json").read_text(encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"node lock file: {error}", _REMEDY, code="invalid-node-lock") from error
    return NodeLock.from_json(text)


def _format_rows(rows: list[dict[str, Any]]) -> str:
    return ",\n".join(f"    {json.dumps(row)}" for row in rows)


def _parse_jar(row: Mapping[str, Any]) -> Jar:
    group, artifact, version = row["maven"].split(":")
    jar = Jar(
        group=group,
        artifact=artifact,
        version=version,
        folder=row["folder"],
        sha256=row["sha256"],
        size_bytes=int(row["size_bytes"]),
    )
    parts = PurePosixPath(jar.path).parts
    if ".." in parts or parts[0] not in ("lib", "modules"):
        raise ValueError(f"{jar.path!r} is not a path in a distribution")
    return jar
