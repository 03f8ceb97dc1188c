"""`stair-es dashboards`: publish the dashboard of an index, or export it as a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stair_es.config import DEFAULT_INDEX, ENV_URL
from stair_es.errors import ClusterUnreachable, UsageError

from . import connections, options
from .injected import Injected
from .output import emit_json, note, plain, stdout

if TYPE_CHECKING:
    from stair_es.cluster.target import Distribution
    from stair_es.dashboards.corpus import Corpus, Product, TimeField
    from stair_es.dashboards.place import Place
    from stair_es.dashboards.publish import Found, Imported

_ENV = "STAIR_ES_DASHBOARDS_"
_PART = "Space, workspace or tenant"
_TLS = "Connection to the product"

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Create dashboards of an index for OpenSearch Dashboards and Kibana.

The dashboard "STAIR words" shows the words of an index, their frequency, weights and co-occurrence, the images that a word
finds, and images whose words look wrong. `publish` imports it into the product, `export` writes a file.""",
)
ProductOption = Annotated[
    Literal["auto", "opensearch-dashboards", "kibana"],
    typer.Option("--product", help="Product to build for; auto detects it."),
]
WordsIndex = Annotated[
    bool | None,
    typer.Option(
        "--words-index/--no-words-index",
        help="Whether there is a token index NAME-words, for the panels about weights. [default: detected]",
        show_default=False,
    ),
]
TimeFieldOption = Annotated[
    Literal["taken_at", "ingested_at"] | None,
    typer.Option(
        "--time-field",
        help="Field for `Words over time`. [default: taken_at if most images have it, otherwise ingested_at]",
        show_default=False,
    ),
]
Output = Annotated[str, typer.Option("--output", "-o", help="Output file (NAME.ndjson), or - for stdout.")]


def _certificate(name: str, help_text: str) -> tuple[Any, None]:
    variable = _ENV + name.upper().replace("-", "_")
    option = typer.Option(f"--dashboards-{name}", envvar=variable, show_envvar=True, help=help_text, rich_help_panel=_TLS)
    return Annotated[str | None, option], None


_CERTIFICATES = {
    "ca_file": _certificate("ca-file", "PEM file with trusted certificate authorities, instead of the system's."),
    "ca_fingerprint": _certificate("ca-fingerprint", "SHA-256 fingerprint of the certificate of the authority or of the server."),
    "client_cert": _certificate("client-cert", "PEM file with the client certificate (and its key)."),
    "client_key": _certificate("client-key", "PEM file with the key of the client certificate."),
}
_certified = Injected(
    {**{f"dashboards_{name}": option for name, option in _CERTIFICATES.items()}, "context": (typer.Context, None)}
)
certified = _certified.into
"""Decorator that adds the TLS options for the product to a command."""

DashboardsUrl = Annotated[
    str | None,
    typer.Option(
        "--dashboards-url",
        envvar=f"{_ENV}URL",
        show_envvar=True,
        help="URL of OpenSearch Dashboards or Kibana, with its base path if any.",
    ),
]
Space = Annotated[str | None, typer.Option("--space", help="Id of a Kibana space.", rich_help_panel=_PART)]
Workspace = Annotated[
    str | None, typer.Option("--workspace", help="Id of an OpenSearch Dashboards workspace.", rich_help_panel=_PART)
]
Tenant = Annotated[
    str | None,
    typer.Option("--tenant", help="OpenSearch Dashboards tenant: `global`, `private` or a name.", rich_help_panel=_PART),
]
Timeout = Annotated[float, typer.Option("--timeout", min=1, help="Timeout of a request in seconds.", rich_help_panel=_TLS)]


def publish(
    index: options.Index = DEFAULT_INDEX,
    dashboards_url: DashboardsUrl = None,
    product: ProductOption = "auto",
    space: Space = None,
    workspace: Workspace = None,
    tenant: Tenant = None,
    words_index: WordsIndex = None,
    time_field: TimeFieldOption = None,
    as_json: options.Json = False,
    timeout: Timeout = 60.0,
    url: options.Url = None,
) -> None:
    """Publish the dashboard to OpenSearch Dashboards or Kibana, and print its address. Overwrites an earlier one of the index.

    Logins come from the environment: `STAIR_ES_DASHBOARDS_USER` and `STAIR_ES_DASHBOARDS_PASSWORD`, or
    `STAIR_ES_DASHBOARDS_API_KEY`, or `STAIR_ES_DASHBOARDS_TOKEN`; each can also be read from the file named by the variable with
    `_FILE` appended. Logins for the cluster are not used.

    **Examples**

    - `stair-es dashboards publish --index photos --dashboards-url http://localhost:5601`

    - `stair-es dashboards publish --index photos --dashboards-url https://kibana.example.org --space photo-team`

    - `stair-es dashboards publish --index photos --dashboards-url https://host/_dashboards --tenant global --json`

    **Exit code**: 0 if all objects were imported, 1 if the import failed, 2 on wrong usage, 3 if some objects were
    rejected (each is named).
    """
    from stair_es.dashboards.bundle import bundle, dashboard_id
    from stair_es.dashboards.place import place_from_env
    from stair_es.dashboards.publish import publish as put
    from stair_es.dashboards.publish import recognise
    from stair_es.dashboards.session import Session

    if dashboards_url and dashboards_url != os.environ.get(f"{_ENV}URL"):
        connections.refuse_password(dashboards_url, f"{_ENV}URL")
    named, environ = connections.belonging(_certified.given, dashboards_url, "dashboards_")
    certificates = {name: named[f"dashboards_{name}"] for name in _CERTIFICATES}
    place = place_from_env(
        dashboards_url, certificates, environ, space=space, workspace=workspace, tenant=tenant, timeout_s=timeout
    )
    corpus, _ = looked(index, url, words_index=words_index, time_field=time_field)
    with closing(Session(place)) as session:
        found = recognise(session, None if product == "auto" else product)
        imported = put(session, bundle(corpus, found.product))
    refused = [each for each in imported if each.error]
    dashboard = next(each for each in imported if each.id == dashboard_id(corpus))
    link = None if dashboard.error else place.link(dashboard.stored_as)
    if as_json:
        emit_json(_as_json(found, link, imported))
    else:
        _tell(place, found, link, imported)
    if refused:
        raise typer.Exit(3 if len(refused) < len(imported) else 1)


def _as_json(found: Found, link: str | None, imported: Sequence[Imported]) -> dict[str, Any]:
    objects = [{name: value for name, value in asdict(each).items() if value != ""} for each in imported]
    return {
        "product": found.product,
        "version": found.version or None,
        "url": link,
        "imported": sum(not each.error for each in imported),
        "refused": sum(bool(each.error) for each in imported),
        "objects": objects,
    }


def _tell(place: Place, found: Found, link: str | None, imported: Sequence[Imported]) -> None:
    there = [each for each in imported if not each.error]
    over = sum(each.overwritten for each in there)
    note(f"{found.label} at {place.safe_url}: {len(there)} of {len(imported)} objects imported, {over} of them overwritten")
    for each in imported:
        if each.error:
            note(f"{each.type} {each.title!r} ({each.id}): {each.error}")
    if link:
        stdout.print(link, markup=False)


def export(
    output: Output,
    index: options.Index = DEFAULT_INDEX,
    product: ProductOption = "auto",
    words_index: WordsIndex = None,
    time_field: TimeFieldOption = None,
    url: options.Url = None,
) -> None:
    """Export the dashboard as a file for import (Stack Management, Saved Objects, Import).

    Reads the index, to leave out panels that would have no data. Needs no cluster if --words-index or --no-words-index is given.

    **Examples**

    - `stair-es dashboards export --index photos -o photos.ndjson`

    - `stair-es dashboards export --index photos --product kibana --words-index -o - | gzip > photos.ndjson.gz`

    **Exit code**: 0 if the file was written, 1 if it failed (nothing is written), 2 on wrong usage.
    """
    from stair_es.dashboards.bundle import bundle
    from stair_es.dashboards.objects import ndjson

    if output != "-" and not output.lower().endswith(".ndjson"):
        raise UsageError(
            f"--output {output}: the products import only files with the extension .ndjson",
            f"Use {Path(output).with_suffix('.ndjson') if Path(output).name else 'photos.ndjson'}",
        )
    corpus, distribution = looked(index, url, words_index=words_index, time_field=time_field)
    wanted = product_of(product, distribution)
    objects = bundle(corpus, wanted)
    text = ndjson(objects)
    if output == "-":
        plain(text.rstrip("\n"))
        return
    Path(output).write_text(text, encoding="utf-8")
    note(f"{len(objects)} objects for {wanted} written to {output}")


def looked(
    index: str, url: str | None, *, words_index: bool | None, time_field: TimeField | None
) -> tuple[Corpus, Distribution | None]:
    """Return the specification of the dashboard, and the distribution of the cluster.

    The cluster is not asked if the options suffice and no URL is given.

    Args:
        index: Alias of the index.
        url: URL of the cluster.
        words_index: Whether there is a token index; None asks the cluster.
        time_field: Field for `Words over time`; None asks the cluster.

    Returns:
        The specification, and the distribution, or None if the cluster wasn't asked or doesn't answer.

    Raises:
        UsageError: If the name is not a valid index name.
        ClusterUnreachable: If the cluster doesn't answer and the options don't suffice.
        StairError: If there is no such index, or a request is rejected.
    """
    from stair_es.dashboards.corpus import Corpus

    told = Corpus(name=index, companion=bool(words_index), time_field=time_field or "ingested_at")
    given = url or os.environ.get(ENV_URL) or os.environ.get(f"{ENV_URL}_FILE")
    if words_index is not None and not given:
        note(f"the cluster was not queried: no --url / {ENV_URL}")
        return told, None
    try:
        return _look(index, url, words_index, time_field)
    except ClusterUnreachable as error:
        if words_index is None:
            raise ClusterUnreachable(
                error.message, f"{error.remedy} Or give --words-index or --no-words-index, which need no cluster."
            ) from None
        note(f"the cluster was not queried: {error.message}")
        return told, None


def product_of(asked: str, distribution: Distribution | None) -> Product:
    """Select the product: the requested one, otherwise the one for the distribution of the cluster.

    Args:
        asked: Requested product, or `auto`.
        distribution: Distribution of the cluster, if known.

    Returns:
        The product.

    Raises:
        UsageError: If neither is known.
    """
    if asked == "kibana" or (asked == "auto" and distribution == "elasticsearch"):
        return "kibana"
    if asked == "opensearch-dashboards" or distribution == "opensearch":
        return "opensearch-dashboards"
    raise UsageError("the product is unknown", "Give --product opensearch-dashboards or kibana: no cluster was queried.")


def _look(
    index: str, url: str | None, words_index: bool | None, time_field: TimeField | None
) -> tuple[Corpus, Distribution | None]:
    from dataclasses import replace

    from stair_es.cluster.connect import probe
    from stair_es.dashboards.corpus import look

    connection = connections.connection(url)
    with closing(connection.client()) as client:
        distribution = probe(client, connection).distribution
        found = look(client, connection, index, time_field)
    corpus = found.corpus
    if words_index is not None and words_index != corpus.companion:
        if words_index:
            note(f"{corpus.words_name} doesn't exist yet: until it does, the panels about weights show an error")
        corpus = replace(corpus, companion=words_index)
    else:
        for remark in found.remarks:
            note(remark)
    return corpus, distribution


app.command(name="publish")(connections.connected(certified(publish)))
app.command(name="export")(connections.connected(export))
