"""Ingests that are held in the middle until something has happened, and an independent look at what they stored, index by index.

::

    with install_models(folder):
        runs = IngestRuns(client, node_url, options)
        runs.run_paused(PauseOnce(lambda: runs.run("second")))
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stair_es.cluster.client.connection import Connection
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.model.base import ModelSpec
from stair_es.sources.base import SourceItem
from stair_es.sources.registry import open_source
from support.messages import forward_messages
from support.plugin_metadata import install_plugin
from support.servers.fault_proxy import Fault, FaultProxy, MaybeResponse, Request, Response, Send

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

EXAMPLES = Path(__file__).parents[2] / "examples"
COUNT = 8
_MODELS = """
from dataclasses import replace

from stair_es_example.colors import KIND, ColorsPlugin


class _Kind(ColorsPlugin):
    def __init__(self, name):
        self.card = replace(KIND.card, name=name, model_id=f"{name}-1")


FIRST, SECOND = _Kind("first"), _Kind("second")
"""


@contextmanager
def install_models(folder: Path) -> Iterator[None]:
    """Install a package in `folder` with the trivial models `first` and `second`."""
    (folder / "paused_runs_models.py").write_text(_MODELS)
    points = ("first = paused_runs_models:FIRST", "second = paused_runs_models:SECOND")
    try:
        with install_plugin(folder, "paused-runs-models", *points):
            yield
    finally:
        sys.modules.pop("paused_runs_models", None)


class PhotoSource:
    """Some of the bundled photos, named by one source."""

    def __init__(self, start: int = 0, stop: int = COUNT) -> None:
        self.uri, self.ignored = (EXAMPLES / "photos").as_uri(), dict[str, int]()
        items = [item for item in open_source(str(EXAMPLES / "photos")).list_items() if isinstance(item, SourceItem)]
        self._items = sorted(items, key=lambda item: item.uri)[start:stop]

    def list_items(self) -> Iterator[SourceItem]:
        """Yield the items."""
        yield from self._items


@dataclass
class PauseOnce:
    """A plan of the proxy: matching requests wait until `action` has run, once."""

    action: Callable[[], object]
    matches: Callable[[Request], bool] = lambda request: request.is_bulk
    skip: int = 0
    """Number of matching requests that pass first."""
    done: bool = False
    error: Exception | None = None
    """Why `action` failed."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Fault | None:
        """Return the fault that holds the request, or None."""
        if not self.matches(request):
            return None
        self.skip -= 1
        return Fault("paused", self._hold_request) if self.skip < 0 else None

    def _hold_request(self, request: Request, send: Send) -> MaybeResponse:
        with self._lock:
            if not self.done and not self.error:
                try:
                    self.action()
                    self.done = True
                except Exception as error:  # noqa: BLE001  the test reads any
                    self.error = error
        return Response.json({"error": f"{self.error}"}, 401) if self.error else send(request)  # 401: the run isn't to go on


class IngestRuns:
    """Ingests into one alias."""

    def __init__(self, client: OpenSearch, url: str, options: IngestOptions) -> None:
        self.client, self.url, self.options, self.alias = client, url, options, options.alias
        self.messages: list[str] = []

    def run(self, model: str = "first", photos: PhotoSource | None = None, url: str = "", **more: Any) -> IngestReport:  # noqa: ANN401
        """Run an ingest, through a proxy at `url` or directly to the node."""
        letters = self.options.dead_letters
        assert letters
        dead_letters = letters.with_name(f"{model}-{bool(url)}.jsonl")
        options = replace(self.options, model=ModelSpec(name=model), dead_letters=dead_letters, **more)
        connection = Connection(url=url or self.url)
        with forward_messages(self.messages.append):
            return run_ingest([photos or PhotoSource()], connection, options, progress=lambda _: None)

    def run_paused(self, plan: PauseOnce, photos: PhotoSource | None = None, **more: Any) -> IngestReport:  # noqa: ANN401
        """Run the first model while `plan` holds requests; assert that its action has run."""
        with FaultProxy(self.url, plan) as proxy:
            try:
                return self.run("first", photos, proxy.url, **more)
            finally:
                assert plan.done, plan.error

    def get_alias_target(self) -> str:
        """Return the alias target."""
        [name] = self.client.indices.get_alias(name=self.alias)
        return str(name)

    def move_alias(self, alias: str, to: str, **more: bool) -> None:
        """Point an alias to the index `to` only."""
        removals = [{"remove": {"index": index, "alias": alias}} for index in self.client.indices.get_alias(name=alias)]
        self.client.indices.update_aliases(body={"actions": [*removals, {"add": {"index": to, "alias": alias, **more}}]})

    def recreate_index(self, index: str) -> None:
        """Delete an index, and create it again with its mapping and its aliases, but without documents."""
        described = self.client.indices.get(index=index)[index]
        self.client.indices.delete(index=index)
        self.client.indices.create(index=index, body={name: described[name] for name in ("mappings", "aliases")})

    def create_foreign_index(self, ids: tuple[str, ...] = ("0", "1", "2")) -> str:
        """Create a foreign index with a document for each of `ids`."""
        name = f"{self.alias}-of-somebody-else"
        self.client.indices.create(index=name)
        for id_ in ids:
            self.client.index(index=name, id=id_, body={"mine": id_}, params={"refresh": "true"})
        return name

    def read_documents(self, index: str) -> dict[str, dict[str, Any]]:
        """Map ids to sources."""
        self.client.indices.refresh(index=index)
        hits = self.client.search(index=index, body={"size": 1000})["hits"]["hits"]
        assert self.client.count(index=index)["count"] == len(hits)
        return {hit["_id"]: hit["_source"] for hit in hits}

    def check_documents(self, index: str, count: int, model: str) -> None:
        """Assert that the index has `count` documents of different images, all of one model."""
        sources = self.read_documents(index).values()
        models = Counter(source["model"] for source in sources)
        assert (len(sources), len({source["uri"] for source in sources}), models) == (count, count, Counter({model: count}))

    def check_foreign_index(self, index: str, ids: tuple[str, ...] = ("0", "1", "2")) -> None:
        """Assert that a foreign index is unchanged."""
        assert self.read_documents(index) == {id_: {"mine": id_} for id_ in ids}
        assert set(self.client.indices.get_mapping(index=index)[index]["mappings"]["properties"]) == {"mine"}
