"""`stair-es query`."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlsplit

import typer

from stair_es.config.defaults import MAX_CLAUSES
from stair_es.errors import UsageError

from ..options import config_file, shared
from ..options.encoder import resolve_encoder_offline
from ..options.search import SearchArguments, TargetArguments, parse_cursor
from ..output.console import emit_json, print_notice, print_plain
from ..output.notices import print_query_notices, print_removed_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping


_DEFAULT_PORT = 9200
_EXAMPLE = 'stair-es query "red car", or stair-es query --image FILE'


_MaxClauses = Annotated[
    int,
    typer.Option(
        "--max-clauses", metavar="N", min=1, help="Maximum number of query clauses. The default limit of a cluster is 1024."
    ),
]


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
    inputs = search.parse_inputs(words, _EXAMPLE)
    options, cursor = search.build_options(), parse_cursor(after)
    if options.fusion == "rrf":
        raise UsageError("--hybrid rrf needs two requests, so there is no single body", "Use --hybrid sum, or `search`.")
    url, index = target.connection.url, target.index
    encoder = resolve_encoder_offline(target.model, target.fit, target.connection, index, target.backend, target.text_tower)
    from stair_es.search.options import prune_vector
    from stair_es.search.query_encoder import build_search_query
    from stair_es.search.request import build_search_request

    search_query = build_search_query(encoder, inputs, search.build_limits())
    print_query_notices(search_query.unknown_words, search_query.remarks)
    query_type, pruned_vector = options.query_type or "rank_features", prune_vector(search_query.vector, options.weight_mass)
    request = build_search_request(
        replace(search_query, vector=pruned_vector.kept),
        query_type,
        max_clauses=max_clauses,
        k=k,
        after=cursor,
        ordered=not options.search_pipeline,
    )
    print_removed_tokens(request.truncated, pruned_vector.pruned, query_type, "--max-clauses")
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
