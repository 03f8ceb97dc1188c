"""`stair-es evaluate retrieval`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stair_es.config.defaults import DEFAULT_MODEL, MAX_HITS
from stair_es.errors import UsageError

from ...options import connections, shared
from .shared import (
    AgainstOption,
    EvaluationArguments,
    ImageFolderOption,
    OutFolderOption,
    SplitOption,
    print_skipped,
    run_and_report,
)

if TYPE_CHECKING:
    from stair_es.eval.retrieval.report import RetrievalReport


_Captions = Annotated[
    Path,
    typer.Argument(
        metavar="CAPTIONS",
        help="A caption set: JSON Lines, COCO's `captions_*.json`, Karpathy's `dataset_*.json`, TSV, CSV, Parquet,"
        " webdataset tars ('shards/{0000..0127}.tar'), or a folder of images"
        " with a text file next to each. Quote patterns.",
    ),
]
_Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Use only the first N images.")]
_Exact = Annotated[bool, typer.Option("--exact", help="Compute exact dot products only; needs no cluster.")]
_FieldType = Annotated[
    Literal["rank_features", "sparse_vector"],
    typer.Option("--vector", help="Field type of the words; sparse_vector is Elasticsearch's."),
]
_QueryType = Annotated[
    Literal["rank_features", "neural_sparse", "sparse_vector"] | None,
    typer.Option("--shape", help="Form of the queries; else what suits the cluster."),
]
_Depth = Annotated[
    int,
    typer.Option(
        "--depth", min=10, max=MAX_HITS, help="Number of hits to request; items that are not among them are ranked last."
    ),
]
_Keep = Annotated[bool, typer.Option("--keep", help="Keep the temporary indices (eval-...).")]


def evaluate_retrieval_command(
    captions: _Captions,
    images: ImageFolderOption = None,
    split: SplitOption = None,
    limit: _Limit = None,
    out: OutFolderOption = None,
    exact: _Exact = False,
    url: shared.UrlOption = None,
    model: shared.ModelOption = DEFAULT_MODEL,
    fit: shared.FitOption = None,
    against: AgainstOption = None,
    backend: shared.BackendOption = "auto",
    text_tower: shared.TextTowerOption = "full",
    vector: _FieldType = "rank_features",
    shape: _QueryType = None,
    depth: _Depth = 1000,
    keep: _Keep = False,
    as_json: shared.JsonOption = False,
) -> None:
    """Measure text-image retrieval of models and of the cluster, in both directions, and compare methods.

    Recall, nDCG, MRR and median rank of the models' token weights, of bags of words, of BM25 on captions and of dense vectors by
    kNN (if the model has them), by exact dot products and by the cluster, in temporary indices that are deleted at the end.

    **Examples**

    `stair-es evaluate retrieval examples/photos/captions.jsonl --exact`

    `stair-es evaluate retrieval dataset_flickr30k.json --images flickr30k-images --limit 500 --out report`

    `stair-es evaluate retrieval dataset_coco.json --images coco --model my-stair --against openai/clip-vit-base-patch16`
    """
    given = EvaluationArguments(
        model=model, fit=fit, against=against, backend=backend, text_tower=text_tower, out=out, as_json=as_json
    )

    def build_report(progress: Callable[[str, int, int], None]) -> RetrievalReport:
        from stair_es.eval.datasets.captions import read_captions
        from stair_es.eval.retrieval.run import EvalOptions, evaluate_retrieval

        if exact and (keep or shape):
            raise UsageError("--keep and --shape don't apply to --exact, which uses no cluster", "Leave them out, or --exact.")
        chosen = EvalOptions(vector=vector, query_type=shape, depth=depth, keep_index=keep)
        found = read_captions(captions, images=images, split=split, limit=limit)
        models = given.load_models()
        print_skipped(found.problems)
        connection = None if exact else connections.resolve_connection(url)
        return evaluate_retrieval(found, models, connection, chosen, progress=progress)

    run_and_report(given, build_report)
