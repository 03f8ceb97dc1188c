"""`stair-es explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stair_es.config.defaults import MAX_HITS

from ..options import shared
from ..options.search import SearchArguments, TargetArguments
from ..output.bars import TerminalInfo, format_rank_explanation
from ..output.console import emit_json, stdout
from ..output.notices import print_query_notices

if TYPE_CHECKING:
    from stair_es.search.diagnose import RankExplanation

_EXAMPLE = 'stair-es explain URI "red car", or stair-es explain URI --image FILE'


def explain_command(
    document: Annotated[str, typer.Argument(metavar="IMAGE", help="URI, path or id of the image.")],
    words: shared.QueryWordsArgument = None,
    k: Annotated[
        int, typer.Option("-k", metavar="N", min=1, max=MAX_HITS, help="Number of hits that should include the image.")
    ] = 10,
    as_json: shared.JsonOption = False,
    *,
    target: TargetArguments,
    search: SearchArguments,
) -> None:
    """Explain the rank of an image for a query: which words match, and which would have matched.

    **Examples**

    ```text
    stair-es explain photos/tabby-cat.jpg "a kitten"
    stair-es explain file:///photos/tabby-cat.jpg "dog -grass" --json
    stair-es explain 3cb3f0d1 --image other.jpg
    ```
    """
    inputs, options = search.parse_inputs(words, _EXAMPLE), search.build_options()
    query, searcher = target.open_search(inputs, search.build_limits())
    print_query_notices(query.unknown_words, query.remarks)
    from stair_es.search.diagnose import explain_rank

    with searcher:
        explanation = explain_rank(searcher, query, parse_document_reference(document), k=k, options=options)
    if as_json:
        emit_json(to_json(explanation))
        return
    for line in format_rank_explanation(explanation, k, TerminalInfo.from_console(stdout)):
        stdout.print(line)


def parse_document_reference(document: str) -> str:
    """Return the URI of a path as `search` prints it, with an optional line number; return URIs and ids unchanged."""
    from stair_es.sources.io.uris import to_file_uri

    path, separator, line = document, "", ""
    if not _is_file(document):
        path, separator, line = document.rpartition("#")
        if not _is_file(path):
            # The file may be gone while its document still exists.
            return to_file_uri(document) if document.startswith("/") else document
    return to_file_uri(path) + separator + line


def _is_file(path: str) -> bool:
    from pathlib import Path

    try:
        return Path(path).is_file()
    except OSError:  # too long for a path: it may be an id
        return False


def to_json(explanation: RankExplanation) -> dict[str, object]:
    """Return the machine-readable form."""
    from dataclasses import asdict

    vectors = {"missing_tokens": explanation.missing_tokens.to_dict(), "extra_tokens": explanation.extra_tokens.to_dict()}
    return {**asdict(explanation), "contributions": [asdict(part) for part in explanation.contributions], **vectors}
