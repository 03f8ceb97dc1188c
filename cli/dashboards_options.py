"""What the commands of `stair-es dashboards` share: options, and what is known of the index."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stair_es.config import ENV_URL
from stair_es.errors import ClusterUnreachable, UsageError

from . import options
from .output import note

if TYPE_CHECKING:
    from stair_es.cluster.target import Distribution
    from stair_es.dashboards.corpus import Corpus, Product, TimeField

ProductOption = Annotated[
    Literal["auto", "opensearch-dashboards", "kibana"],
    typer.Option("--product", help="Which product it is for; auto looks."),
]
WordsIndex = Annotated[
    bool | None,
    typer.Option(
        "--words-index/--no-words-index",
        help="Whether there is a companion index NAME-words, for the panels about weights. [default: looks]",
        show_default=False,
    ),
]
TimeFieldOption = Annotated[
    Literal["taken_at", "ingested_at"] | None,
    typer.Option(
        "--time-field",
        help="What `Words over time` goes by. [default: taken_at if most images have it, else ingested_at]",
        show_default=False,
    ),
]


def looked(
    index: str, url: str | None, *, words_index: bool | None, time_field: TimeField | None
) -> tuple[Corpus, Distribution | None]:
    """What the dashboard is for, and what the cluster is if it was asked: it isn't where it isn't needed or doesn't answer.

    Raises:
        UsageError: Not the name of an index.
        ClusterUnreachable: The cluster doesn't answer, and what it would have said wasn't given.
        StairError: The cluster has no such index, or refuses.
    """
    from stair_es.dashboards.corpus import Corpus

    told = Corpus(name=index, companion=bool(words_index), time_field=time_field or "ingested_at")
    given = url or os.environ.get(ENV_URL) or os.environ.get(f"{ENV_URL}_FILE")
    if words_index is not None and not given:
        note(f"the cluster wasn't asked: no --url / {ENV_URL}")
        return told, None
    try:
        return _look(index, url, words_index, time_field)
    except ClusterUnreachable as error:
        if words_index is None:
            raise ClusterUnreachable(
                error.message, f"{error.remedy} Or say --words-index or --no-words-index, and the cluster isn't needed."
            ) from None
        note(f"the cluster wasn't asked: {error.message}")
        return told, None


def product_of(asked: str, distribution: Distribution | None) -> Product:
    """The product that belongs to a cluster, unless another one is asked for.

    Raises:
        UsageError: Neither is known.
    """
    if asked == "kibana" or (asked == "auto" and distribution == "elasticsearch"):
        return "kibana"
    if asked == "opensearch-dashboards" or distribution == "opensearch":
        return "opensearch-dashboards"
    raise UsageError("for which product?", "Give --product opensearch-dashboards or kibana: no cluster was asked.")


def _look(
    index: str, url: str | None, words_index: bool | None, time_field: TimeField | None
) -> tuple[Corpus, Distribution | None]:
    from dataclasses import replace

    from stair_es.cluster.connect import probe
    from stair_es.dashboards.look import look

    connection = options.connection(url)
    with closing(connection.client()) as client:
        distribution = probe(client, connection).distribution
        found = look(client, connection, index, time_field)
    corpus = found.corpus
    if words_index is not None and words_index != corpus.companion:
        if words_index:
            note(f"there is no {corpus.words_name} yet: until there is, the panels about weights show an error")
        corpus = replace(corpus, companion=words_index)
    else:
        for remark in found.remarks:
            note(remark)
    return corpus, distribution
