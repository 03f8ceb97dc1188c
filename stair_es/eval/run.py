"""An evaluation from a caption set to a report: encode once, then each method exactly and in the cluster."""

from __future__ import annotations

import platform
import secrets
import time
from collections.abc import Callable
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
from stair_es.eval.bench import Bench
from stair_es.eval.choose import chosen
from stair_es.eval.dense import dense_of
from stair_es.eval.encode import Progress, encode_set
from stair_es.eval.methods import Engine, Method, Missing
from stair_es.eval.report import Evaluation, Row
from stair_es.eval.trial import analyzer
from stair_es.search.shapes import Fields, Shape, choose

if TYPE_CHECKING:
    from stair_es.eval.captions import CaptionSet
    from stair_es.model.encoder import Encoder, ModelSpec

DEPTH = 1000


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """How an evaluation goes about it."""

    model: ModelSpec
    vector: Literal["rank_features", "sparse_vector"] = "rank_features"
    shape: Shape | None = None
    """Of the queries; None for what suits the cluster."""
    depth: int = DEPTH
    """Hits that are asked for, at most; what isn't among them is ranked last."""
    keep: bool = False
    """Whether the temporary indices stay."""

    def __post_init__(self) -> None:
        """Check the depth.

        Raises:
            UsageError: Out of range.
        """
        if not 10 <= self.depth <= MAX_HITS:
            raise UsageError(f"the depth must be between 10 and {MAX_HITS}, got {self.depth}", "Give --depth 1000, say.")


def evaluate(
    captions: CaptionSet,
    encoder: Encoder,
    connection: Connection,
    options: EvalOptions,
    *,
    say: Callable[[str], None],
    progress: Progress,
) -> Evaluation:
    """All methods, both ways.

    Args:
        captions: The set.
        encoder: What `options.model` describes.
        connection: The cluster; indices called `eval-...` are made there, and deleted at the end unless they are to be kept.
        options: How.
        say: Gets remarks for people.
        progress: Is told how far encoding and searching are.

    Raises:
        StairError: Nothing of the set can be used, or the cluster fails.
    """
    start = time.perf_counter()
    client = connection.client()
    try:
        target = probe(client, connection)
        body = index_body(target, DocumentSettings(thumbnail_px=0, vector=options.vector))
        ask_plugins = partial(plugins, client, connection)
        shape = choose(target, Fields.from_mapping(body["mappings"]["properties"]), ask_plugins, options.shape)
        encoded = encode_set(captions, encoder, dense_of(encoder) if options.model.text_tower == "full" else None, progress)
        engine = Engine(
            distribution=target.distribution,
            shape=shape,
            max_clauses=target.max_clauses,
            depth=options.depth,
            analyzer=analyzer(client, connection),
            word_body=body,
        )
        methods = chosen(encoded, engine, target, ask_plugins)
        name = f"eval-{secrets.token_hex(4)}"
        bench = Bench(
            client=client,
            connection=connection,
            run=name,
            identity=Identity(model_name=options.model.name, model_id=encoder.model_id, settings={"evaluation": name}),
            depth=options.depth,
            keep=options.keep,
            say=say,
            progress=progress,
        )
        rows = bench.rows([method for method in methods if isinstance(method, Method)])
        rows += [_missing(method) for method in methods if isinstance(method, Missing)]
    finally:
        client.close()
    return Evaluation(
        captions=captions.name,
        form=captions.form,
        images=len(encoded.captions.images),
        texts=len(encoded.texts),
        problems=encoded.captions.problems,
        model=encoder.model_id,
        text_tower=options.model.text_tower,
        cluster=target.label,
        shape=shape,
        depth=options.depth,
        analyzer=engine.analyzer,
        rows=_in_order(rows),
        versions={"python": platform.python_version(), **{name: version(name) for name in ("stair-es", "numpy")}},
        seconds=time.perf_counter() - start,
        kept=tuple(dict.fromkeys(row.index for row in rows if row.index)),
    )


def _missing(method: Missing) -> Row:
    reason = method.reason
    return Row(method=method.name, direction=method.direction, exact_reason=reason, engine_reason=reason)


def _in_order(rows: list[Row]) -> tuple[Row, ...]:
    methods = ("STAIR", "bag of words", "BM25 on captions", "dense kNN")
    return tuple(sorted(rows, key=lambda row: (row.direction != "text -> image", methods.index(row.method))))
