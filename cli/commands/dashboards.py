"""`stair-es dashboards`: publish the dashboard of an index, or export it as a file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stair_es.config.defaults import DEFAULT_INDEX, ENV_URL
from stair_es.errors import EXIT_PARTIAL_FAILURE, ClusterUnreachable, UsageError

from ..options import config_file, shared
from ..options.connections import (
    CERTIFICATE_KEYS,
    ConnectionArguments,
    check_no_password,
    define_certificate_option,
    open_cluster,
    resolve_connection_settings,
)
from ..options.decorator import prepare_command
from ..output.console import emit_json, print_notice, print_plain, stdout

if TYPE_CHECKING:
    from stair_es.cluster.client.capabilities import Distribution
    from stair_es.dashboards.connection import DashboardsConnection
    from stair_es.dashboards.index_info import DashboardSpec, Product, TimeField
    from stair_es.dashboards.publish import DetectedProduct, ImportResult

_ENV_PREFIX = "STAIR_ES_DASHBOARDS_"
_PART_PANEL = "Space, workspace or tenant"
_TLS_PANEL = "Connection to the product"

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Create a dashboard of an index for OpenSearch Dashboards or Kibana.

**Examples**

```text
stair-es dashboards publish --index photos --dashboards-url http://localhost:5601
stair-es dashboards export --index photos -o photos.ndjson
```

The dashboard "STAIR words" shows the words of an index with their frequency, weights and co-occurrence, the images that a word
finds, and images whose words look wrong. `publish` imports it into the product; `export` writes it to stdout or a file.""",
)
DashboardsProductOption = Annotated[
    Literal["auto", "opensearch-dashboards", "kibana"],
    typer.Option("--product", help="Product to build the dashboard for; `auto` detects it."),
]
DashboardsTokenIndexOption = Annotated[
    bool | None,
    typer.Option(
        "--token-index/--no-token-index",
        help="Include or leave out the panels that require the token index ALIAS-tokens. [default: detected]",
        show_default=False,
    ),
]
TimeFieldOption = Annotated[
    Literal["taken_at", "ingested_at"] | None,
    typer.Option(
        "--time-field",
        help="Date field of the panel `Words over time`. [default: taken_at if most images have it, otherwise ingested_at]",
        show_default=False,
    ),
]
PageUrlOption = Annotated[
    str | None,
    typer.Option(
        "--page-url",
        metavar="URL",
        help="URL at which browsers reach `stair-es serve`, to link the tables to the images.",
    ),
]
OutputFileOption = Annotated[
    str, typer.Option("--output", "-o", metavar="FILE", help="Output file (NAME.ndjson), or - for stdout.")
]


@dataclass(frozen=True, kw_only=True)
class ProductArguments:
    """Options for the connection to OpenSearch Dashboards or Kibana."""

    dashboards_url: Annotated[
        str | None,
        typer.Option(
            "--dashboards-url",
            envvar=f"{_ENV_PREFIX}URL",
            show_envvar=True,
            metavar="URL",
            help="URL of OpenSearch Dashboards or Kibana, including its base path if it has one.",
        ),
    ] = None
    space: Annotated[
        str | None, typer.Option("--space", metavar="ID", help="Kibana space to publish to.", rich_help_panel=_PART_PANEL)
    ] = None
    workspace: Annotated[
        str | None,
        typer.Option(
            "--workspace", metavar="ID", help="OpenSearch Dashboards workspace to publish to.", rich_help_panel=_PART_PANEL
        ),
    ] = None
    tenant: Annotated[
        str | None,
        typer.Option(
            "--tenant",
            metavar="NAME",
            help="OpenSearch Dashboards tenant to publish to: `global`, `private` or a name.",
            rich_help_panel=_PART_PANEL,
        ),
    ] = None
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, metavar="SECONDS", help="Timeout per request.", rich_help_panel=_TLS_PANEL)
    ] = 60.0
    dashboards_ca_file: Annotated[str | None, define_certificate_option("ca_file", "dashboards_", _TLS_PANEL)] = None
    dashboards_ca_fingerprint: Annotated[str | None, define_certificate_option("ca_fingerprint", "dashboards_", _TLS_PANEL)] = (
        None
    )
    dashboards_client_cert: Annotated[str | None, define_certificate_option("client_cert", "dashboards_", _TLS_PANEL)] = None
    dashboards_client_key: Annotated[str | None, define_certificate_option("client_key", "dashboards_", _TLS_PANEL)] = None

    def resolve_connection(self, context: typer.Context | None) -> DashboardsConnection:
        """Return the connection to the product, given the context of the command."""
        from stair_es.dashboards.connection import build_dashboards_connection

        url = self.dashboards_url
        if url and url != config_file.get_config().environ.get(f"{_ENV_PREFIX}URL"):
            check_no_password(url, f"{_ENV_PREFIX}URL")
        given = {f"dashboards_{key}": getattr(self, f"dashboards_{key}") for key in CERTIFICATE_KEYS}
        options, environ = resolve_connection_settings(given, context, url, "dashboards_")
        certificates = {key: options[f"dashboards_{key}"] for key in CERTIFICATE_KEYS}
        return build_dashboards_connection(
            url,
            certificates,
            environ,
            space=self.space,
            workspace=self.workspace,
            tenant=self.tenant,
            timeout_s=self.timeout,
        )


def publish_dashboards_command(
    *,
    index: shared.IndexOption = DEFAULT_INDEX,
    server: ProductArguments,
    product: DashboardsProductOption = "auto",
    token_index: DashboardsTokenIndexOption = None,
    time_field: TimeFieldOption = None,
    page_url: PageUrlOption = None,
    as_json: shared.JsonOption = False,
    connection: ConnectionArguments,
) -> None:
    """Publish the dashboard to OpenSearch Dashboards or Kibana, and print its URL.

    **Examples**

    ```text
    stair-es dashboards publish --index photos --dashboards-url http://localhost:5601
    stair-es dashboards publish --index photos --dashboards-url https://kibana.example.org --space photo-team
    stair-es dashboards publish --index photos --dashboards-url https://host/_dashboards --tenant global --json
    ```

    Overwrites the previous dashboard of the index. Credentials come from the environment: `STAIR_ES_DASHBOARDS_USER` and
    `STAIR_ES_DASHBOARDS_PASSWORD`, `STAIR_ES_DASHBOARDS_API_KEY`, or `STAIR_ES_DASHBOARDS_TOKEN`. Append `_FILE` to a variable to
    name a file that contains the value. The credentials of the cluster are not used.

    **Exit codes**: 0 if all objects were imported; 3 if some objects were rejected (each is named); 1 if the import failed; 2 for
    a usage error.
    """
    from stair_es.dashboards.bundle import build_bundle, get_dashboard_id
    from stair_es.dashboards.publish import check_space, detect_product, import_objects
    from stair_es.dashboards.session import DashboardsSession

    product_connection = server.resolve_connection(connection.context)
    spec, _ = resolve_dashboard_spec(index, connection, token_index=token_index, time_field=time_field, page_url=page_url)
    with closing(DashboardsSession(product_connection)) as session:
        detected = detect_product(session, None if product == "auto" else product)
        if server.tenant is not None and detected.has_tenants is False:
            print_notice(f"--tenant {server.tenant}: {detected.label} has no security plugin, so there are no tenants")
        if remark := check_space(session):
            print_notice(remark)
        imported = import_objects(session, build_bundle(spec, detected.product))
    rejected = [result for result in imported if result.error]
    dashboard_result = next(result for result in imported if result.id == get_dashboard_id(spec))
    link = None if dashboard_result.error else product_connection.build_link(dashboard_result.stored_as)
    if as_json:
        emit_json(_build_json(detected, link, imported))
    else:
        _print_outcome(product_connection, detected, link, imported)
    if rejected:
        raise typer.Exit(EXIT_PARTIAL_FAILURE if len(rejected) < len(imported) else 1)


def _build_json(detected: DetectedProduct, link: str | None, imported: Sequence[ImportResult]) -> dict[str, Any]:
    objects = [{name: value for name, value in asdict(result).items() if value != ""} for result in imported]
    return {
        "product": detected.product,
        "version": detected.version or None,
        "url": link,
        "imported": sum(not result.error for result in imported),
        "rejected": sum(bool(result.error) for result in imported),
        "objects": objects,
    }


def _print_outcome(
    connection: DashboardsConnection, detected: DetectedProduct, link: str | None, imported: Sequence[ImportResult]
) -> None:
    succeeded = [result for result in imported if not result.error]
    overwritten = sum(result.overwritten for result in succeeded)
    print_notice(
        f"{detected.label} at {connection.safe_url}: {len(succeeded)} of {len(imported)} objects imported,"
        f" {overwritten} of them overwritten"
    )
    for result in imported:
        if result.error:
            print_notice(f"{result.type} {result.title!r} ({result.id}): {result.error}")
    if link:
        stdout.print(link, markup=False)


def export_dashboards_command(
    output: OutputFileOption = "-",
    index: shared.IndexOption = DEFAULT_INDEX,
    product: DashboardsProductOption = "auto",
    token_index: DashboardsTokenIndexOption = None,
    time_field: TimeFieldOption = None,
    page_url: PageUrlOption = None,
    *,
    connection: ConnectionArguments,
) -> None:
    """Export the dashboard to stdout or a file.

    **Examples**

    ```text
    stair-es dashboards export --index photos -o photos.ndjson
    stair-es dashboards export --index photos --product kibana --token-index | gzip > photos.ndjson.gz
    ```

    Import the file under Stack Management, Saved Objects, Import. The command reads the index to leave out panels that would
    have no data. With `--token-index` or `--no-token-index` it requires no cluster.

    **Exit codes**: 0 if everything was written; 1 if the export failed and nothing was written; 2 for a usage error.
    """
    from stair_es.dashboards.bundle import build_bundle, to_ndjson

    if output != "-" and not output.lower().endswith(".ndjson"):
        raise UsageError(
            f"--output {output}: the products import only files with the extension .ndjson",
            f"Use {Path(output).with_suffix('.ndjson') if Path(output).name else 'photos.ndjson'}",
            code="output-not-ndjson",
        )
    spec, distribution = resolve_dashboard_spec(
        index, connection, token_index=token_index, time_field=time_field, page_url=page_url
    )
    selected = select_product(product, distribution)
    objects = build_bundle(spec, selected)
    text = to_ndjson(objects)
    if output == "-":
        print_plain(text.rstrip("\n"))
        return
    Path(output).write_text(text, encoding="utf-8")
    print_notice(f"{len(objects)} objects for {selected} written to {output}")


def resolve_dashboard_spec(
    index: str, connection: ConnectionArguments, *, token_index: bool | None, time_field: TimeField | None, page_url: str | None
) -> tuple[DashboardSpec, Distribution | None]:
    """Return the specification of the dashboard, and the distribution of the cluster.

    Missing values are requested from the cluster, unless the options suffice and no URL is given. The distribution is None if
    the cluster wasn't queried or doesn't respond.

    Raises:
        UsageError: If the name is not a valid index name, or `page_url` no URL.
        ClusterUnreachable: If the cluster doesn't answer and the options don't suffice.
    """
    from dataclasses import replace

    from stair_es.dashboards.connection import parse_page_url
    from stair_es.dashboards.index_info import DashboardSpec

    page_url = parse_page_url(page_url)
    spec = DashboardSpec(name=index, has_token_index=bool(token_index), time_field=time_field or "ingested_at", page_url=page_url)
    environ = config_file.get_config().environ
    cluster_url = connection.url or environ.get(ENV_URL) or environ.get(f"{ENV_URL}_FILE")
    if token_index is not None and not cluster_url:
        print_notice(f"the cluster was not queried: no --url / {ENV_URL}")
        return spec, None
    try:
        inspected, distribution = _inspect_in_cluster(index, connection, token_index, time_field)
        return replace(inspected, page_url=page_url), distribution
    except ClusterUnreachable as error:
        if token_index is None:
            raise ClusterUnreachable(
                error.message,
                f"{error.remedy} Or give --token-index or --no-token-index, which need no cluster.",
                code=error.code,
            ) from None
        print_notice(f"the cluster was not queried: {error.message}")
        return spec, None


def select_product(requested: str, distribution: Distribution | None) -> Product:
    """Return the requested product, otherwise that of the distribution of the cluster; raise UsageError if neither is known."""
    if requested == "kibana" or (requested == "auto" and distribution == "elasticsearch"):
        return "kibana"
    if requested == "opensearch-dashboards" or distribution == "opensearch":
        return "opensearch-dashboards"
    raise UsageError(
        "the product is unknown",
        "Give --product opensearch-dashboards or kibana: no cluster was queried.",
        code="product-unknown",
    )


def _inspect_in_cluster(
    index: str, connection: ConnectionArguments, token_index: bool | None, time_field: TimeField | None
) -> tuple[DashboardSpec, Distribution | None]:
    from dataclasses import replace

    from stair_es.cluster.client.capabilities import get_cluster_info
    from stair_es.dashboards.index_info import inspect_index

    with open_cluster(connection) as cluster:
        distribution = get_cluster_info(cluster).distribution
        info = inspect_index(cluster, index, time_field)
    spec = info.spec
    if token_index is not None and token_index != spec.has_token_index:
        if token_index:
            print_notice(f"{spec.token_index_name} doesn't exist yet: until it does, the panels about weights show an error")
        spec = replace(spec, has_token_index=token_index)
    else:
        for remark in info.remarks:
            print_notice(remark)
    return spec, distribution


app.command(name="publish")(prepare_command(publish_dashboards_command))
app.command(name="export")(prepare_command(export_dashboards_command))
