"""`stair-es coverage`."""

from __future__ import annotations

import time
from typing import Annotated, Literal

import typer

from stair_es.config.defaults import DEFAULT_PRICE_FIELD

from ...options import shared
from ...options.search import TargetArguments
from .options import print_report


def coverage_command(
    log: Annotated[
        str, typer.Argument(metavar="LOG", help="Text file with a search per line, optionally compressed (.gz); - for stdin.")
    ],
    top: Annotated[int, typer.Option("--top", metavar="N", min=1, help="Number of words per table; --json has all.")] = 20,
    as_json: shared.JsonOption = False,
    *,
    literal: Annotated[bool, typer.Option("--literal", help="Treat +, - and ^ in searches as plain text.")] = False,
    hybrid: Annotated[
        Literal["none", "sum"], typer.Option("--hybrid", help="Whether captions or titles count, if the index has them.")
    ] = "sum",
    caption_field: Annotated[
        str,
        typer.Option("--caption-field", metavar="FIELD", help="Document fields of captions. [default: title,caption,text]"),
    ] = "",
    price_field: shared.PriceFieldOption = DEFAULT_PRICE_FIELD,
    target: TargetArguments,
) -> None:
    """Measure what share of the searches in a log have a match, and list the words that the others lack.

    **Examples**

    ```text
    stair-es coverage searches.log --index shop
    sort searches.log | uniq -c | stair-es coverage - --index shop --top 50
    stair-es coverage counts.tsv --index shop --json > coverage.json
    stair-es serve --index shop --coverage coverage.json  # shows the report on the page
    ```

    A line is a search, optionally with its count before or after a tab. Lines of `uniq -c` are recognized, too. Each different
    search is sent once, as `stair-es search` sends it, and the first ten hits are looked at. Changes nothing in the index.

    Three tables show the words with the most searches: those that the model doesn't know, those that no image carries, and
    those of which no search has a match for another reason.
    """
    from stair_es.cluster.client.retry import INTERACTIVE_RETRY
    from stair_es.eval.coverage import build_coverage_report, measure_coverage
    from stair_es.eval.search_log import read_search_log
    from stair_es.search.dsl.query_inputs import QueryInputs

    from ...output.progress import show_evaluation_progress

    searches = read_search_log(log)
    inputs = QueryInputs(literal=literal, hybrid=hybrid != "none", caption_field=caption_field, price_field=price_field)
    start_s = time.monotonic()
    encoder, searcher = target.open_searcher(INTERACTIVE_RETRY)
    with searcher, show_evaluation_progress() as progress:
        has_weak = encoder.match_thresholds is not None and searcher.info.content_type == "images"
        coverage = measure_coverage(searches, encoder, searcher, inputs, progress)
    report = build_coverage_report(
        coverage,
        index=target.index,
        model_id=encoder.model_id,
        top=top,
        has_weak=has_weak,
        seconds=time.monotonic() - start_s,
    )
    print_report(report, as_json=as_json)
