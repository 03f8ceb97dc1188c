"""`stair-es search`."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from stair_es.errors import UsageError

from ..options import shared
from ..options.search import SearchArguments, TargetArguments, parse_cursor
from ..output.bars import TerminalInfo, format_hit, format_weak_heading
from ..output.console import emit_json, print_notice, stdout
from ..output.notices import print_query_notices, print_removed_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stair_es.search.options import SearchOptions
    from stair_es.search.results import Hit, SearchResult

SEARCH_EXAMPLE = 'stair-es search "red car", or stair-es search --image FILE'

_Explain = Annotated[bool, typer.Option("--explain", help="Show how much each matching word adds to the score.")]
_ExplainEngine = Annotated[
    bool, typer.Option("--explain-engine", help="Like --explain, and add the explanation of the search engine.")
]
_Duplicates = Annotated[
    bool, typer.Option("--duplicates", help="List every copy of an image as a separate hit, instead of one hit with a count.")
]
_Fields = Annotated[str, typer.Option("--fields", help="Document fields to include in the output of --json.", metavar="NAME,...")]


def search_command(
    words: shared.QueryWordsArgument = None,
    k: shared.HitsOption = 10,
    after: shared.CursorOption = "",
    explain: _Explain = False,
    explain_engine: _ExplainEngine = False,
    duplicates: _Duplicates = False,
    fields: _Fields = "",
    as_json: shared.JsonOption = False,
    *,
    target: TargetArguments,
    search: SearchArguments,
) -> None:
    """Search images by words, by other images, or by both.

    **Examples**

    ```text
    stair-es search "red car"
    stair-es search "beach -people +dog^2" -k 3 --explain
    stair-es search -people beach
    stair-es search --image https://example.org/dog.jpg
    stair-es search --image holiday.jpg --filter "width:>1000" --json
    stair-es search "at night" --image street.jpg --weights 1,0.5
    stair-es search "black cat" --hybrid rrf
    ```

    Prints ranked hits with the words that match. The score is the dot product of the word weights of the query and of the image.
    The query is encoded with the model of the index, unless you give another one.

    Operators in WORDS: `+dog` requires a word, `-dog` excludes it, `dog^2` doubles its weight, and `dog^0` removes it from the
    query.
    """
    inputs = search.parse_inputs(words, SEARCH_EXAMPLE)
    options = search.build_options(explain_engine=explain_engine, fold_duplicates=not duplicates)
    cursor = parse_cursor(after)
    if after:
        _check_pages(options)
    query, searcher = target.open_search(inputs, search.build_limits())
    with searcher:
        result = searcher.search(query, k, after=cursor, options=options)
    print_removed_tokens(result.truncated, result.pruned, result.query_type, "the cluster's clause limit")
    print_query_notices(result.unknown_words, result.remarks)
    if as_json:
        emit_json(to_json(result, [name.strip() for name in fields.split(",") if name.strip()]))
    else:
        _print_hits(result, explain=explain or explain_engine, is_page=bool(after))


def _check_pages(options: SearchOptions) -> None:
    if options.fusion == "rrf":
        raise UsageError("--hybrid rrf doesn't support pages", "Omit --after, and use a larger -k.")


def _print_hits(result: SearchResult, *, explain: bool, is_page: bool) -> None:
    terminal = TerminalInfo.from_console(stdout)
    hits = sorted(result.hits, key=lambda hit: hit.weak)  # each part by score
    weak = sum(hit.weak for hit in hits)
    for rank, hit in enumerate(hits, start=1):
        if hit.weak and rank == len(hits) - weak + 1:
            stdout.print(format_weak_heading(weak, len(hits)))
        for line in format_hit(rank, hit, terminal, explain=explain):
            stdout.print(line)
    if is_page and result.after:
        print_notice(f"next page: --after {shlex.quote(json.dumps(result.after))}")


def to_json(result: SearchResult, fields: Sequence[str] = ()) -> dict[str, object]:
    """Return the machine-readable form: `{"hits": [{"id", "uri", "score", "weak", "duplicates", ...}], "took_ms", ...}`."""
    return {
        "hits": [_build_hit(hit, fields) for hit in result.hits],
        "took_ms": result.took_ms,
        "query_type": result.query_type,
        "after": result.after,
        "weak_below": result.weak_below,
        "unknown_words": [{"word": each.word, "suggestions": list(each.suggestions)} for each in result.unknown_words],
        "remarks": list(result.remarks),
        "truncated": result.truncated.to_dict(),
        "pruned": result.pruned.to_dict(),
    }


def _build_hit(hit: Hit, fields: Sequence[str]) -> dict[str, object]:
    from dataclasses import asdict

    basic = {"id": hit.id, "index": hit.index, "uri": hit.uri, "score": hit.score, "weak": hit.weak}
    optional = {"caption": hit.source.get("caption"), "engine_scores": dict(hit.engine_scores), "ranks": dict(hit.ranks)}
    requested = {"fields": {name: hit.source.get(name) for name in fields}} if fields else {}
    contributions = [asdict(contribution) for contribution in hit.contributions]
    duplicates = [{"id": copy.id, "index": copy.index, "uri": copy.uri} for copy in hit.duplicates]
    return {
        **basic,
        **{name: value for name, value in optional.items() if value},
        **requested,
        "duplicates": duplicates,
        "contributions": contributions,
    }
