"""`stair-es evaluate retrieval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stair_es.config.defaults import MAX_HITS
from stair_es.errors import UsageError

from ...options import connections, shared
from ...output.console import print_skipped
from .shared import EVALUATION_OPTIONS, ImageFolderOption, LimitOption, SplitOption, run_and_report

if TYPE_CHECKING:
    from stair_es.eval.retrieval.report import RetrievalReport
    from stair_es.types import PartProgressCallback


_Captions = Annotated[
    Path,
    typer.Argument(
        metavar="CAPTIONS",
        help="Caption set: JSON Lines, COCO (`captions_*.json`), Karpathy (`dataset_*.json`), TSV, CSV, Parquet,"
        " webdataset tars ('shards/{0000..0127}.tar', quoted), or a folder with a text file next to each image.",
    ),
]
_Exact = Annotated[bool, typer.Option("--exact", help="Compute only exact dot products, which requires no cluster.")]
_FieldType = Annotated[
    shared.FieldType,
    typer.Option("--vector", help="Field type of the tokens; sparse_vector requires Elasticsearch."),
]
_QueryType = Annotated[
    Literal["rank_features", "neural_sparse", "sparse_vector"] | None,
    typer.Option("--query-type", help="Query type to search with. [default: chosen by the cluster]"),
]
_Depth = Annotated[
    int,
    typer.Option(
        "--depth", metavar="N", min=10, max=MAX_HITS, help="Number of hits to request per query; all other items are ranked last."
    ),
]
_KeepIndex = Annotated[bool, typer.Option("--keep-index", help="Keep the temporary indices (eval-...).")]


def evaluate_retrieval_command(
    captions: _Captions,
    images: ImageFolderOption = None,
    split: SplitOption = None,
    limit: LimitOption = None,
    exact: _Exact = False,
    url: shared.UrlOption = None,
    vector: _FieldType = "rank_features",
    query_type: _QueryType = None,
    depth: _Depth = 1000,
    keep_index: _KeepIndex = False,
) -> None:
    """Measure how well models and the cluster find images by text, and texts by image.

    **Examples**

    ```text
    stair-es evaluate retrieval examples/photos/captions.jsonl --exact
    stair-es evaluate retrieval dataset_flickr30k.json --images flickr30k-images --limit 500 --out report
    stair-es evaluate retrieval dataset_coco.json --images coco --model my-stair --compare openai/clip-vit-base-patch16
    ```

    Prints recall, nDCG, MRR and median rank for token weights, bags of words, BM25 on captions, and kNN on dense vectors if the
    model has them, from exact dot products and from searches of the cluster. The cluster gets temporary indices, which are
    deleted at the end.
    """
    arguments = EVALUATION_OPTIONS.read()

    def build_report(progress: PartProgressCallback) -> RetrievalReport:
        from stair_es.eval.datasets.captions import read_captions
        from stair_es.eval.retrieval.run import EvalOptions, evaluate_retrieval

        if exact and (keep_index or query_type):
            raise UsageError(
                "--keep-index and --query-type don't apply to --exact, which uses no cluster", "Omit them, or omit --exact."
            )
        options = EvalOptions(vector=vector, query_type=query_type, depth=depth, keep_index=keep_index)
        dataset = read_captions(captions, images=images, split=split, limit=limit)
        models = arguments.load_models()
        print_skipped(dataset.problems)
        connection = None if exact else connections.resolve_connection(url)
        return evaluate_retrieval(dataset, models, connection, options, progress=progress)

    run_and_report(arguments, build_report)
