"""`stair-es query`."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlsplit

import typer

from stair_es.config import DEFAULT_INDEX, DEFAULT_MODEL, MAX_CLAUSES, MAX_HITS

from . import inputs, options
from .output import emit_json, note, plain

if TYPE_CHECKING:
    from collections.abc import Mapping

_EXAMPLE = 'stair-es query "red car", or stair-es query --image FILE'


def query(
    words: options.Words = None,
    image: options.QueryImage = None,
    k: Annotated[int, typer.Option("-k", min=1, max=MAX_HITS, help="How many hits the body asks for.")] = 10,
    max_clauses: Annotated[
        int, typer.Option("--max-clauses", min=1, help="How many words at most: the cluster's limit is 1024 by default.")
    ] = MAX_CLAUSES,
    as_json: options.Json = False,
    index: options.Index = DEFAULT_INDEX,
    url: options.Url = None,
    model: options.Model = DEFAULT_MODEL,
    backend: options.BackendOption = "auto",
    text_tower: options.TextTowerOption = "full",
) -> None:
    """Print the search request for any client: a curl command; with `--json` the body alone. Needs no cluster.

    **Examples**

    - `stair-es query "red car"`

    - `stair-es query "red car" | sh`

    - `stair-es query "red car" --json > body.json`
    """
    text = inputs.one_of(words or [], image, _EXAMPLE)
    encoder = inputs.load_encoder(model, backend, text_tower)
    vector = inputs.query_vector(encoder, text, image)
    from stair_es.search.queries import rank_features_query, search_body

    sparse = rank_features_query(vector, max_clauses=max_clauses)
    if len(sparse.cut):
        note(f"--max-clauses left no room for the {len(sparse.cut)} lightest words of the query")
    body = search_body(sparse.clause, k=k)
    if as_json:
        emit_json(body)
        return
    plain(curl(body, _safe(url), index))
    if url and urlsplit(url).username is not None:
        note("the credentials of the URL are left out: add `-u USER:PASSWORD` to the command")


def curl(body: Mapping[str, Any], url: str, index: str) -> str:
    """The request as a shell command, one clause a line."""
    address = f"{url.rstrip('/')}/{quote(index, safe=',*')}/_search"
    clauses = body["query"]["bool"]["should"]
    lines = ",\n".join("  " + json.dumps(clause, ensure_ascii=False) for clause in clauses)
    frame = json.dumps({**body, "query": {"bool": {"should": []}}}, ensure_ascii=False)
    head, _, tail = frame.rpartition("[]")
    header = shlex.quote("Content-Type: application/json")
    return f"curl -sS -H {header} {shlex.quote(address)} -d {shlex.quote(f'{head}[{chr(10)}{lines}{chr(10)}]{tail}')}"


def _safe(url: str | None) -> str:
    """The URL without credentials, or where the embedded node listens or last listened, or would."""
    if url:
        from stair_es.cluster.connect import Connection

        return Connection(url=url.split(",")[0]).safe_url  # curl asks one node
    from stair_es.node import state
    from stair_es.node.spec import DEFAULT_PORT, NodeSpec

    spec = NodeSpec.from_home()
    known = state.read(spec.state_file)
    return (known and known.url) or f"http://127.0.0.1:{spec.port or DEFAULT_PORT}"
