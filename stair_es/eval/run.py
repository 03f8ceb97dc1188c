"""Retrieval evaluation from a caption dataset to a report: encode once, then run each method exactly and on the cluster."""

from __future__ import annotations

import platform
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

from stair_es.cluster.connect import Connection, probe
from stair_es.cluster.documents import DocumentSettings
from stair_es.cluster.identity import Identity
from stair_es.cluster.mapping import index_body
from stair_es.cluster.target import plugins
from stair_es.config import MAX_HITS
from stair_es.errors import UsageError
from stair_es.eval.bench import Bench, exact_rows
from stair_es.eval.choose import Obstacle, bm25, chosen, knn_obstacle
from stair_es.eval.contenders import Contender, in_turn
from stair_es.eval.encode import Encoded, Progress, encode_set
from stair_es.eval.methods import NO_CLUSTER, Engine, Method, Missing
from stair_es.eval.report import Evaluation, Row
from stair_es.eval.trial import analyzer
from stair_es.model import catalogue
from stair_es.search.shapes import Fields, Shape, choose

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from stair_es.cluster.target import Target
    from stair_es.eval.captions import CaptionSet

DEPTH = 1000


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Options of a retrieval evaluation."""

    vector: Literal["rank_features", "sparse_vector"] = "rank_features"
    shape: Shape | None = None
    """Query type; None for the default of the cluster."""
    depth: int = DEPTH
    """Maximum number of hits per query; items beyond it are ranked last."""
    keep: bool = False
    """Whether to keep the temporary indices."""

    def __post_init__(self) -> None:
        """Check the depth.

        Raises:
            UsageError: If it is out of range.
        """
        if not 10 <= self.depth <= MAX_HITS:
            raise UsageError(f"the depth must be between 10 and {MAX_HITS}, got {self.depth}", "Give --depth 1000, say.")


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A cluster to evaluate on."""

    client: OpenSearch
    connection: Connection
    target: Target
    engine: Engine
    obstacle: Obstacle
    """Checks kNN support."""


def evaluate(
    captions: CaptionSet,
    models: Sequence[Contender],
    connection: Connection | None,
    options: EvalOptions,
    *,
    say: Callable[[str], None],
    progress: Progress,
) -> Evaluation:
    """Evaluate all methods of all models, in both directions.

    Args:
        captions: The dataset.
        models: At least one; they encode one after another.
        connection: The cluster, on which temporary indices `eval-...` are created, and deleted at the end unless they are kept.
            None for exact scores only.
        options: Options.
        say: Called with messages for the user.
        progress: Callback for the progress of encoding and searching.

    Raises:
        StairError: If nothing in the dataset is usable, or the cluster fails.
    """
    start = time.perf_counter()
    firsts: list[Encoded] = []
    problems: list[str] = []
    with _place(connection, options) as place:
        engine = place.engine if place else None

        def work(model: Contender) -> list[Row]:
            encoded = encode_set(captions, model, progress)
            problems.extend(encoded.captions.problems)
            methods = chosen(encoded, model, engine, place.obstacle if place else _no_cluster)
            if not firsts:
                methods += bm25(encoded, engine)
                firsts.append(encoded)
            return _rows(methods, model, place, options, say, progress)

        rows = in_turn(models, work, problems, say)
    [first] = firsts
    return Evaluation(
        captions=captions.name,
        form=captions.form,
        images=len(first.captions.images),
        texts=len(first.texts),
        problems=tuple(dict.fromkeys(problems)),
        model=models[0].label,
        against=tuple(model.label for model in models[1:]),
        text_tower=models[0].spec.text_tower,
        cluster=place.target.label if place else "",
        shape=engine.shape if engine else "",
        depth=options.depth if engine else 0,
        analyzer=engine.analyzer if engine else "",
        rows=_in_order(rows),
        versions={"python": platform.python_version(), **{name: version(name) for name in ("stair-es", "numpy")}},
        seconds=time.perf_counter() - start,
        kept=tuple(dict.fromkeys(row.index for row in rows if row.index)),
    )


@contextmanager
def _place(connection: Connection | None, options: EvalOptions) -> Iterator[_Place | None]:
    if connection is None:
        yield None
        return
    client = connection.client()
    try:
        target = probe(client, connection)
        body = index_body(target, DocumentSettings(thumbnail_px=0, vector=options.vector))
        ask_plugins = partial(plugins, client, connection)
        engine = Engine(
            distribution=target.distribution,
            shape=choose(target, Fields.from_mapping(body["mappings"]["properties"]), ask_plugins, options.shape),
            max_clauses=target.max_clauses,
            depth=options.depth,
            analyzer=analyzer(client, connection),
            word_body=body,
        )
        obstacle = knn_obstacle(target, ask_plugins)
        yield _Place(client=client, connection=connection, target=target, engine=engine, obstacle=obstacle)
    finally:
        client.close()


def _no_cluster(dimensions: int) -> str:
    return NO_CLUSTER


def _rows(
    methods: Sequence[Method | Missing],
    model: Contender,
    place: _Place | None,
    options: EvalOptions,
    say: Callable[[str], None],
    progress: Progress,
) -> list[Row]:
    there = [method for method in methods if isinstance(method, Method)]
    missing = [_missing(method) for method in methods if isinstance(method, Missing)]
    if place is None:
        return exact_rows(there) + missing
    name = f"eval-{secrets.token_hex(4)}"
    bench = Bench(
        client=place.client,
        connection=place.connection,
        run=name,
        identity=Identity(
            model_name=catalogue.absolute(model.spec.name),
            model_id=model.label,
            fit=model.encoder.image_spec.fit,
            settings={"evaluation": name},
        ),
        depth=options.depth,
        keep=options.keep,
        say=say,
        progress=progress,
    )
    return bench.rows(there) + missing


def _missing(method: Missing) -> Row:
    reason = method.reason
    return Row(method=method.name, model=method.model, direction=method.direction, exact_reason=reason, engine_reason=reason)


def _in_order(rows: list[Row]) -> tuple[Row, ...]:
    methods = ("STAIR", "bag of words", "BM25 on captions", "dense kNN")
    return tuple(sorted(rows, key=lambda row: (row.direction != "text -> image", methods.index(row.method))))
