"""`stair-es dashboards publish`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stair_es.config import DEFAULT_INDEX

from . import options
from .dashboards_options import ProductOption, TimeFieldOption, WordsIndex, looked
from .injected import Injected
from .output import emit_json, note, stdout

if TYPE_CHECKING:
    from stair_es.dashboards.place import Place
    from stair_es.dashboards.publish import Found, Imported

_ENV = "STAIR_ES_DASHBOARDS_"
_PART = "Part of the product"
_TLS = "Connection to the product"


def _certificate(name: str, help_text: str) -> tuple[Any, None]:
    variable = _ENV + name.upper().replace("-", "_")
    option = typer.Option(f"--dashboards-{name}", envvar=variable, show_envvar=True, help=help_text, rich_help_panel=_TLS)
    return Annotated[str | None, option], None


_CERTIFICATES = {
    "ca_file": _certificate("ca-file", "PEM file with the authorities to trust, in place of the system's."),
    "ca_fingerprint": _certificate("ca-fingerprint", "SHA-256 of the authority's certificate, or of the server's own."),
    "client_cert": _certificate("client-cert", "PEM file with the certificate to show (and its key)."),
    "client_key": _certificate("client-key", "PEM file with the key of that certificate."),
}
_certified = Injected(
    {**{f"dashboards_{name}": option for name, option in _CERTIFICATES.items()}, "context": (typer.Context, None)}
)
certified = _certified.into
"""The command with the options of a secure connection to the product besides its own."""

DashboardsUrl = Annotated[
    str | None,
    typer.Option(
        "--dashboards-url",
        envvar=f"{_ENV}URL",
        show_envvar=True,
        help="OpenSearch Dashboards or Kibana, with its base path if it has one.",
    ),
]
Space = Annotated[str | None, typer.Option("--space", help="A space of Kibana, by its id.", rich_help_panel=_PART)]
Workspace = Annotated[
    str | None, typer.Option("--workspace", help="A workspace of OpenSearch Dashboards, by its id.", rich_help_panel=_PART)
]
Tenant = Annotated[
    str | None,
    typer.Option("--tenant", help="A tenant of OpenSearch Dashboards: `global`, `private` or its name.", rich_help_panel=_PART),
]
Timeout = Annotated[float, typer.Option("--timeout", min=1, help="Seconds to wait for an answer.", rich_help_panel=_TLS)]


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
    """Put the dashboard into OpenSearch Dashboards or Kibana, over an earlier one of the same index; prints its address.

    Logins come from the environment: `STAIR_ES_DASHBOARDS_USER` and `STAIR_ES_DASHBOARDS_PASSWORD`, or
    `STAIR_ES_DASHBOARDS_API_KEY`, or `STAIR_ES_DASHBOARDS_TOKEN`; each with `_FILE` behind its name may name a file instead.
    Those of the cluster aren't sent there.

    **Examples**

    - `stair-es dashboards publish --index photos --dashboards-url http://localhost:5601`

    - `stair-es dashboards publish --index photos --dashboards-url https://kibana.example.org --space photo-team`

    - `stair-es dashboards publish --index photos --dashboards-url https://host/_dashboards --tenant global --json`

    **Exit code**: 0 all objects are there, 1 failed as a whole, 2 wrong usage, 3 some objects were refused (named one by one).
    """
    from stair_es.dashboards.bundle import bundle, dashboard_id
    from stair_es.dashboards.place import place_from_env
    from stair_es.dashboards.publish import publish as put
    from stair_es.dashboards.publish import recognise
    from stair_es.dashboards.session import Session

    if dashboards_url and dashboards_url != os.environ.get(f"{_ENV}URL"):
        options.refuse_password(dashboards_url, f"{_ENV}URL")
    named, environ = options.belonging(_certified.given, dashboards_url, "dashboards_")
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
    note(f"{found.label} at {place.safe_url}: {len(there)} of {len(imported)} objects imported, {over} of them over earlier ones")
    for each in imported:
        if each.error:
            note(f"{each.type} {each.title!r} ({each.id}): {each.error}")
    if link:
        stdout.print(link, markup=False)
