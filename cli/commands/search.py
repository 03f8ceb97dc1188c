"""`stair-es search`, `query` and `explain`."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlsplit

import typer

from stair_es.config.defaults import MAX_CLAUSES, MAX_HITS
from stair_es.errors import UsageError

from ..options import config_file, shared
from ..options.search import SearchArguments, TargetArguments, parse_cursor
from ..output.bars import TerminalInfo, format_hit, format_rank_explanation, format_weak_heading
from ..output.console import emit_json, print_notice, print_plain, stdout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stair_es.model.vocabularies.unknown_words import UnknownWord
    from stair_es.search.diagnose import RankExplanation
    from stair_es.search.dsl.understanding import TextCondition
    from stair_es.search.options import SearchOptions
    from stair_es.search.results import Hit, SearchResult
    from stair_es.types import QueryType, SparseVector

_SEARCH_EXAMPLE = 'stair-es search "red car", or stair-es search --image FILE'
_QUERY_EXAMPLE = 'stair-es query "red car", or stair-es query --image FILE'
_EXPLAIN_EXAMPLE = 'stair-es explain URI "red car", or stair-es explain URI --image FILE'
_DEFAULT_PORT = 9200
_MAX_NAMED_TOKENS = 8

_Explain = Annotated[bool, typer.Option("--explain", help="Show how much each matching word adds to the score.")]
_ExplainEngine = Annotated[
    bool, typer.Option("--explain-engine", help="Like --explain, and add the explanation of the search engine.")
]
_Duplicates = Annotated[
    bool, typer.Option("--duplicates", help="List every copy of an image as a separate hit, instead of one hit with a count.")
]
_Sort = Annotated[
    str,
    typer.Option(
        "--sort",
        help="Sort matches by a field of numbers or dates, such as price:asc, instead of by score. Weak matches are left out.",
        metavar="FIELD:asc|desc",
    ),
]
_Fields = Annotated[str, typer.Option("--fields", help="Document fields to include in the output of --json.", metavar="NAME,...")]
_MaxClauses = Annotated[
    int,
    typer.Option(
        "--max-clauses", metavar="N", min=1, help="Maximum number of query clauses. The default limit of a cluster is 1024."
    ),
]


def search_command(
    words: shared.QueryWordsArgument = None,
    k: shared.HitsOption = 10,
    after: shared.CursorOption = "",
    explain: _Explain = False,
    explain_engine: _ExplainEngine = False,
    duplicates: _Duplicates = False,
    sort: _Sort = "",
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
    inputs = search.parse_inputs(words, _SEARCH_EXAMPLE)
    options = search.build_options(explain_engine=explain_engine, fold_duplicates=not duplicates, sort=sort)
    cursor = parse_cursor(after)
    if after:
        _check_pages(options)
    query, searcher = target.open_search(inputs, search.build_limits())
    with searcher:
        result = searcher.search(query, k, after=cursor, options=options)
    _print_removed_tokens(result.truncated, result.pruned, result.query_type, "the cluster's clause limit")
    _print_query_notices(result.conditions, result.unknown_words, result.remarks)
    if as_json:
        emit_json(to_json(result, [name.strip() for name in fields.split(",") if name.strip()]))
    else:
        _print_hits(result, explain=explain or explain_engine, is_page=bool(after))


def _check_pages(options: SearchOptions) -> None:
    if options.fusion == "rrf":
        raise UsageError("--hybrid rrf doesn't support pages", "Omit --after, and use a larger -k.", code="rrf-not-pageable")


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
        "conditions": [each.to_dict() for each in result.conditions],
        "unknown_words": [each.to_dict() for each in result.unknown_words],
        "remarks": list(result.remarks),
        "truncated": result.truncated.to_dict(),
        "pruned": result.pruned.to_dict(),
    }


def _build_hit(hit: Hit, fields: Sequence[str]) -> dict[str, object]:
    from dataclasses import asdict

    basic = {"id": hit.id, "index": hit.index, "uri": hit.uri, "score": hit.score, "weak": hit.weak}
    optional = {
        "caption": hit.source.get("caption"),
        "labels": dict(hit.labels),
        "engine_scores": dict(hit.engine_scores),
        "ranks": dict(hit.ranks),
    }
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


def query_command(
    words: shared.QueryWordsArgument = None,
    k: shared.HitsOption = 10,
    after: shared.CursorOption = "",
    max_clauses: _MaxClauses = MAX_CLAUSES,
    as_json: shared.JsonOption = False,
    *,
    target: TargetArguments,
    search: SearchArguments,
) -> None:
    """Print the search request for a query as a curl command, or with `--json` its body alone.

    **Examples**

    ```text
    stair-es query "red car"
    stair-es query "red car" | sh
    stair-es query "red car" --query-type sparse_vector --json > body.json
    ```

    The model is the one of the index, or the default model if no cluster answers. The query uses `rank_feature` clauses, unless
    `--query-type` names another query type.
    """
    inputs = search.parse_inputs(words, _QUERY_EXAMPLE)
    options, cursor = search.build_options(), parse_cursor(after)
    if options.fusion == "rrf":
        raise UsageError(
            "--hybrid rrf needs two requests, so there is no single body",
            "Use --hybrid sum, or `search`.",
            code="rrf-without-body",
        )
    url, index = target.connection.url, target.index
    encoder, info = target.encoder.load_offline(target.connection, index)
    from stair_es.search.dsl.understanding import NO_FIELDS
    from stair_es.search.options import prune_vector
    from stair_es.search.query_encoder import build_search_query
    from stair_es.search.request import build_search_request

    fields = info.list_search_fields(inputs.price_field) if info is not None else NO_FIELDS
    search_query = build_search_query(encoder, inputs, search.build_limits(), fields=fields)
    _print_query_notices(search_query.conditions, search_query.unknown_words, search_query.remarks)
    query_type, pruned_vector = options.query_type or "rank_features", prune_vector(search_query.vector, options.weight_mass)
    request = build_search_request(
        replace(search_query, vector=pruned_vector.kept),
        query_type,
        max_clauses=max_clauses,
        k=k,
        after=cursor,
        ordered=not options.search_pipeline,
    )
    _print_removed_tokens(request.truncated, pruned_vector.pruned, query_type, "--max-clauses")
    if as_json:
        emit_json(request.body)
        return
    print_plain(format_curl_command(request.body, _get_display_url(url), index, options.search_pipeline))
    if url and any(urlsplit(part).username is not None for part in url.split(",")):
        print_notice("the credentials of the URL are omitted: add `-u USER:PASSWORD` to the command")


def format_curl_command(body: Mapping[str, Any], url: str, index: str, pipeline: str | None = None) -> str:
    """Format the request as a shell command, one `rank_feature` clause per line."""
    address = f"{url.rstrip('/')}/{quote(index, safe=',*')}/_search"
    if pipeline:
        address += f"?search_pipeline={quote(pipeline, safe='')}"
    text = json.dumps(body, ensure_ascii=False)
    # Quotes within values are escaped, so this never matches inside a value.
    data = re.sub(r'(?<=[\[,]) ?(?=\{"rank_feature": )', "\n  ", text)
    header = shlex.quote("Content-Type: application/json")
    return f"curl -sS -H {header} {shlex.quote(address)} -d {shlex.quote(data)}"


def _get_display_url(url: str | None) -> str:
    """Return the URL without credentials, or that of the embedded node; before its first start, the default port of servers."""
    if url:
        from stair_es.cluster.client.connection import Connection

        return Connection(url=Connection(url=url).nodes[0]).safe_url  # curl sends to one node
    from stair_es.embedded_node import state
    from stair_es.embedded_node.ports import read_port
    from stair_es.embedded_node.spec import NodeSpec

    spec = NodeSpec.from_home(environ=config_file.get_config().environ)
    node_state = state.read_node_state(spec.state_file)
    return (node_state and node_state.url) or f"http://127.0.0.1:{spec.port or read_port(spec.port_file) or _DEFAULT_PORT}"


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
    inputs, options = search.parse_inputs(words, _EXPLAIN_EXAMPLE), search.build_options()
    query, searcher = target.open_search(inputs, search.build_limits())
    _print_query_notices(query.conditions, query.unknown_words, query.remarks)
    from stair_es.search.diagnose import explain_rank

    with searcher:
        explanation = explain_rank(searcher, query, parse_document_reference(document), k=k, options=options)
    if as_json:
        emit_json(_build_explanation_json(explanation))
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


def _build_explanation_json(explanation: RankExplanation) -> dict[str, object]:
    from dataclasses import asdict

    vectors = {"missing_tokens": explanation.missing_tokens.to_dict(), "extra_tokens": explanation.extra_tokens.to_dict()}
    return {**asdict(explanation), "contributions": [asdict(part) for part in explanation.contributions], **vectors}


def _print_query_notices(
    conditions: Sequence[TextCondition], unknown_words: Sequence[UnknownWord], remarks: Sequence[str]
) -> None:
    """Print which parts of a query are conditions, which words are unknown, and the remarks on it."""
    for notice in (*conditions, *unknown_words, *remarks):
        print_notice(str(notice))
    missing = [each.word for each in unknown_words if not each.searched_for]
    if missing:
        print_notice(f"a word can be taught from pictures that show it: stair-es teach {shlex.quote(missing[0])} --yes IMAGE ...")


def _print_removed_tokens(truncated: SparseVector, pruned: SparseVector, query_type: QueryType, limit: str) -> None:
    """Print which tokens were not sent: the query type doesn't support them, they exceed the `limit`, or they were pruned."""
    from stair_es.cluster.documents.document import is_single_term

    unsupported = [token for token in truncated.tokens if query_type == "impacts" and not is_single_term(token)]
    if unsupported:
        print_notice(f"`impacts` has no word pieces and symbols; not sent: {', '.join(unsupported[:_MAX_NAMED_TOKENS])}")
    if len(truncated) > len(unsupported):
        print_notice(f"{limit} is exceeded: the {len(truncated) - len(unsupported)} lightest words of the query were not sent")
    if len(pruned):
        print_notice(f"pruned: {len(pruned)} words of the query were not sent ({', '.join(pruned.tokens[:_MAX_NAMED_TOKENS])})")
