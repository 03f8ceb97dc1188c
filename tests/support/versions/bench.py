"""Shared state of the checks of one node: photos with captions, a policy, and the existing indices."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from support.versions.commands import CommandRunner

__all__ = ["BEST", "MUTED", "PHOTOS", "QUESTION", "Bench", "WrongOutput", "check_best_hit", "check_output"]

_EXAMPLES = Path(__file__).parents[3] / "examples" / "photos"
PHOTOS = ("tabby-cat.jpg", "two-spaniels.jpg", "espresso.jpg", "scarlet-macaw.jpg", "red-panda.jpg", "clownfish.jpg")
BEST = PHOTOS[0]
QUESTION = "a cat"
MUTED = "lynx"
"""A word of the best photo alone."""


class WrongOutput(Exception):
    """The command succeeded with wrong output."""


class Bench:
    """Shared state of the checks of one node: the commands, the photos, and the existing indices."""

    def __init__(self, commands: CommandRunner, prefix: str = "", main: str = "rank_features") -> None:
        """Copy the photos with their captions.

        Args:
            commands: For the node.
            prefix: What the names of indices begin with.
            main: Field type of the index that most checks use.
        """
        self.commands = commands
        self.prefix = prefix
        self._main = main
        self.photos = commands.folder / "photos"
        self.photos.mkdir()
        lines = (_EXAMPLES / "captions.jsonl").read_text(encoding="utf-8").splitlines()
        (self.photos / "captions.jsonl").write_text("\n".join(line for line in lines if json.loads(line)["file"] in PHOTOS))
        for name in PHOTOS:
            shutil.copyfile(_EXAMPLES / name, self.photos / name)
        self.policy = commands.folder / "policy.json"
        self.policy.write_text(json.dumps({"stair_es_policy": 1, "mute": [MUTED]}))
        self.indices: set[str] = set()

    @property
    def main(self) -> str:
        """Field type of the index that most checks use.

        Raises:
            WrongOutput: If its ingest failed.
        """
        if self._main not in self.indices:
            raise WrongOutput(f"there is no index of {self._main}")
        return self._main

    @property
    def best(self) -> str:
        """URI of the photo that the query describes."""
        return (self.photos / BEST).as_uri()

    def alias(self, index: str) -> str:
        """Return the alias of an index for commands."""
        return self.prefix + index

    def ingest(self, index: str, *options: str) -> Mapping[str, object]:
        """Ingest the photos."""
        report: Mapping[str, object] = self.commands.run(
            "ingest", self.photos / "captions.jsonl", "--image-column", "file", "--index", self.alias(index), *options
        )
        check_output(report, seen=len(PHOTOS), failed=0)
        self.indices.add(index)
        return report

    def words(self) -> list[str]:
        """Return the tokens of the best photo in the index, without muted ones."""
        document = self.commands.run("inspect", self.best, "--index", self.alias(self.main))
        return [entry["token"] for entry in document["tokens"]]


def check_output(values: Mapping[str, object], **expected: object) -> None:
    """Check what a command printed.

    Raises:
        WrongOutput: If a value differs.
    """
    for name, value in expected.items():
        if values.get(name) != value:
            raise WrongOutput(f"{name} is {values.get(name)!r}, not {value!r}")


def check_best_hit(bench: Bench, hits: list[Mapping[str, object]]) -> None:
    """Check that the photo that the query describes is found first.

    Raises:
        WrongOutput: If it isn't.
    """
    first = hits[0]["uri"] if hits else "nothing"
    if first != bench.best:
        raise WrongOutput(f"{QUESTION!r} finds {str(first).rpartition('/')[2]} first, not {BEST}")
