"""Ingests that are held in the middle until something has happened, and an independent look at what they stored, index by index.

::

    with two_models(folder):
        runs = Runs(client, node_url, options)
        runs.run_behind(Meanwhile(lambda: runs.run("second")))
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

from stair_es import plugins
from stair_es.cluster.client.connection import Connection
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.model.base import ModelSpec
from stair_es.sources.base import SourceItem
from stair_es.sources.registry import open_source
from support.messages import forward_messages
from support.plugin_metadata import announce_plugins
from support.servers.fault_proxy import Answer, Fault, FaultProxy, Reply, Request, Send

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

EXAMPLES = Path(__file__).parents[2] / "examples"
COUNT = 8
_MODELS = """
from dataclasses import replace

from stair_es_example.colours import KIND, ColoursPlugin


class _Kind(ColoursPlugin):
    def __init__(self, name):
        self.card = replace(KIND.card, name=name, model_id=f"{name}-1")


FIRST, SECOND = _Kind("first"), _Kind("second")
"""


@contextmanager
def two_models(folder: Path) -> Iterator[None]:
    """The models `first` and `second`, which cost nothing, as a package in `folder` brings them."""
    (folder / "held_runs_models.py").write_text(_MODELS)
    announce_plugins(folder, "held-runs-models", "first = held_runs_models:FIRST", "second = held_runs_models:SECOND")
    paths = [str(folder), str(EXAMPLES / "plugin" / "src")]
    sys.path[:0] = paths
    plugins.list_plugins.cache_clear()
    try:
        yield
    finally:
        for path in paths:
            sys.path.remove(path)
        sys.modules.pop("held_runs_models", None)
        plugins.list_plugins.cache_clear()


class Photos:
    """Some of the bundled photos, named by one source."""

    def __init__(self, start: int = 0, stop: int = COUNT) -> None:
        self.uri, self.ignored = (EXAMPLES / "photos").as_uri(), dict[str, int]()
        items = [item for item in open_source(str(EXAMPLES / "photos")).list_items() if isinstance(item, SourceItem)]
        self._items = sorted(items, key=lambda item: item.uri)[start:stop]

    def list_items(self) -> Iterator[SourceItem]:
        """Yield the items."""
        yield from self._items


@dataclass
class Meanwhile:
    """A plan of the proxy: matching requests wait until `act` has run, once."""

    act: Callable[[], object]
    is_it: Callable[[Request], bool] = lambda request: request.is_bulk
    skip: int = 0
    """Number of matching requests that pass first."""
    done: bool = False
    error: Exception | None = None
    """Why `act` failed."""

    def __post_init__(self) -> None:
        self._one = threading.Lock()

    def __call__(self, request: Request) -> Fault | None:
        """Return the fault that holds the request, or None."""
        if not self.is_it(request):
            return None
        self.skip -= 1
        return Fault("held", self._hold) if self.skip < 0 else None

    def _hold(self, request: Request, send: Send) -> Answer:
        with self._one:
            if not self.done and not self.error:
                try:
                    self.act()
                    self.done = True
                except Exception as error:  # noqa: BLE001  the test is told of any
                    self.error = error
        return Reply.json({"error": f"{self.error}"}, 401) if self.error else send(request)  # 401: the run isn't to go on


class Runs:
    """Ingests into one alias."""

    def __init__(self, client: OpenSearch, url: str, options: IngestOptions) -> None:
        self.client, self.url, self.options, self.alias = client, url, options, options.alias
        self.said: list[str] = []

    def run(self, model: str = "first", photos: Photos | None = None, url: str = "", **more: Any) -> IngestReport:  # noqa: ANN401
        """Run an ingest, through a proxy at `url` or directly to the node."""
        letters = self.options.dead_letters
        assert letters
        dead_letters = letters.with_name(f"{model}-{bool(url)}.jsonl")
        options = replace(self.options, model=ModelSpec(name=model), dead_letters=dead_letters, **more)
        connection = Connection(url=url or self.url)
        with forward_messages(self.said.append):
            return run_ingest([photos or Photos()], connection, options, progress=lambda _: None)

    def run_behind(self, plan: Meanwhile, photos: Photos | None = None, **more: Any) -> IngestReport:  # noqa: ANN401
        """Run the first model while `plan` holds requests; assert that its action has run."""
        with FaultProxy(self.url, plan) as proxy:
            try:
                return self.run("first", photos, proxy.url, **more)
            finally:
                assert plan.done, plan.error

    def live(self) -> str:
        """Return the alias target."""
        [name] = self.client.indices.get_alias(name=self.alias)
        return str(name)

    def move(self, alias: str, to: str, **more: bool) -> None:
        """Point an alias to the index `to` only."""
        removals = [{"remove": {"index": index, "alias": alias}} for index in self.client.indices.get_alias(name=alias)]
        self.client.indices.update_aliases(body={"actions": [*removals, {"add": {"index": to, "alias": alias, **more}}]})

    def make_foreign(self, ids: tuple[str, ...] = ("0", "1", "2")) -> str:
        """Create a foreign index with a document for each of `ids`."""
        name = f"{self.alias}-of-somebody-else"
        self.client.indices.create(index=name)
        for id_ in ids:
            self.client.index(index=name, id=id_, body={"mine": id_}, params={"refresh": "true"})
        return name

    def stored(self, index: str) -> dict[str, dict[str, Any]]:
        """Id -> source of all documents."""
        self.client.indices.refresh(index=index)
        hits = self.client.search(index=index, body={"size": 1000})["hits"]["hits"]
        assert self.client.count(index=index)["count"] == len(hits)
        return {hit["_id"]: hit["_source"] for hit in hits}

    def check(self, index: str, count: int, model: str) -> None:
        """Assert that the index has `count` documents of different images, all of one model."""
        sources = self.stored(index).values()
        models = Counter(source["model"] for source in sources)
        assert (len(sources), len({source["uri"] for source in sources}), models) == (count, count, Counter({model: count}))

    def check_foreign(self, index: str, ids: tuple[str, ...] = ("0", "1", "2")) -> None:
        """Assert that a foreign index is unchanged."""
        assert self.stored(index) == {id_: {"mine": id_} for id_ in ids}
        assert set(self.client.indices.get_mapping(index=index)[index]["mappings"]["properties"]) == {"mine"}
