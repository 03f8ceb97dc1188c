"""A few photos with captions in an index, for tests of the page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.model.base import ModelSpec
from stair_es.sources.registry import open_source
from stair_es.types import Runner

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

PHOTOS = Path(__file__).resolve().parents[3] / "examples" / "photos"
NAMES = ("tabby-cat", "kitten-with-yarn", "two-spaniels", "dairy-cow", "red-panda", "giant-panda")


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A corpus."""

    client: OpenSearch
    url: str
    alias: str
    index: str
    folder: Path

    def add_document(self, id_: str, source: Mapping[str, Any]) -> None:
        """Write a document as a stranger would."""
        self.client.index(index=self.index, id=id_, body=dict(source), params={"refresh": "true"})

    def read_documents(self) -> dict[str, dict[str, Any]]:
        """Map ids to sources."""
        hits = self.client.search(index=self.alias, body={"size": 1000})["hits"]["hits"]
        return {hit["_id"]: hit["_source"] for hit in hits}

    def get_id(self, name: str) -> str:
        """Return the id of a photo."""
        return next(id_ for id_, source in self.read_documents().items() if source.get("caption") == name.replace("-", " "))


@contextmanager
def ingest_corpus(url: str, alias: str, folder: Path, model: str = "stair-mini", **more: Any) -> Iterator[Corpus]:  # noqa: ANN401
    """Copy `NAMES` into `folder` and ingest them with their names as captions. `more` are options of ingest."""
    for name in NAMES:
        shutil.copy(PHOTOS / f"{name}.jpg", folder)
    with Cluster(Connection(url=url)) as cluster:
        ingest_folder(url, alias, folder, model, **more)
        yield Corpus(client=cluster.client, url=url, alias=alias, index=get_alias_target(cluster.client, alias), folder=folder)
        cluster.client.indices.delete(
            index=",".join(cluster.client.indices.get(index=f"{alias}-*"))
        )  # by name: not every engine takes a pattern


def ingest_folder(url: str, alias: str, folder: Path, model: str, runner: Runner = "local", **more: Any) -> None:  # noqa: ANN401
    """Ingest what lies in the folder, with captions. `more` are options of ingest."""
    rows = [{"image": str(path), "caption": path.stem.replace("-", " ")} for path in sorted(folder.glob("*.jpg"))]
    table = folder / "photos.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = IngestOptions(
        alias=alias, model=ModelSpec(name=model), runner=runner, dead_letters=folder / "letters.jsonl", **more
    )
    run_ingest([open_source(str(table))], Connection(url=url), options, progress=lambda _: None)


def get_alias_target(client: OpenSearch, alias: str) -> str:
    """Return its index."""
    [index] = client.indices.get_alias(name=alias)
    return str(index)
