"""`stair-es template`: search templates in the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import typer

from stair_es.config.defaults import DEFAULT_INDEX
from stair_es.types import TokensType

from ..options import shared
from ..options.connections import ConnectionArguments, open_cluster
from ..options.decorator import prepare_command
from ..output.console import emit_json, print_notice, print_plain, stdout

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Manage search templates in the cluster, so that clients in any language can search with a few parameters.

**Example**

```text
stair-es template publish --index photos
```

The template `tokens` takes a list of tokens with weights. `hybrid` also takes a text for the captions. `match` takes plain text
for the field `impacts`. See docs/templates.md for the parameters.""",
)

TemplateName = Literal["tokens", "hybrid", "match"]
TemplateNamesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        help="Templates to publish: `tokens`, `hybrid`, `match`. [default: all that the index supports]", metavar="TEMPLATE"
    ),
]
TemplateQueryTypeOption = Annotated[
    TokensType | None,
    typer.Option("--query-type", help="Type of the field `tokens`. [default: the type in the index]"),
]
PrefixOption = Annotated[
    str, typer.Option("--prefix", metavar="TEXT", help="Prefix of the template ids, for example one per tenant.")
]
_PREFIX = "stair-es-"


@app.command(name="publish")
@prepare_command
def publish_templates_command(
    names: TemplateNamesArgument = None,
    query_type: TemplateQueryTypeOption = None,
    prefix: PrefixOption = _PREFIX,
    as_json: shared.JsonOption = False,
    *,
    index: shared.IndexOption = DEFAULT_INDEX,
    connection: ConnectionArguments,
) -> None:
    """Store templates in the cluster.

    **Examples**

    ```text
    stair-es template publish --index photos
    stair-es template publish tokens --query-type rank_features --prefix acme-
    ```

    Existing templates are not changed.
    """
    from stair_es.search import templates

    field_type, selected = query_type, tuple(names or ())
    for name in selected:
        templates.build_template(name, templates.TEMPLATE_QUERY_TYPES[0], prefix=prefix)  # checks the names before any request
    with open_cluster(connection) as cluster:
        templates.check_template_support(cluster)
        if field_type is None:
            supported = templates.detect_templates(cluster, index)
            field_type, selected = supported.query_type, selected or supported.names
            _print_left_out(selected, supported.names, names is not None, index)
        built = [
            templates.build_template(name, field_type, prefix=prefix)
            for name in dict.fromkeys(selected or templates.TEMPLATE_NAMES)
        ]
        changes = {template.id: templates.publish_template(cluster, template) for template in built}
    _print_states(changes, as_json)


@app.command(name="show")
@prepare_command
def show_template_command(
    name: Annotated[TemplateName, typer.Argument(metavar="TEMPLATE", help="Template to print: `tokens`, `hybrid` or `match`.")],
    query_type: Annotated[TokensType, typer.Option("--query-type", help="Type of the field `tokens`.")] = "rank_features",
    prefix: PrefixOption = _PREFIX,
    as_json: shared.JsonOption = False,
) -> None:
    """Print a template as `publish` stores it in the cluster.

    **Examples**

    ```text
    stair-es template show tokens
    stair-es template show tokens --json > tokens.json
    ```

    With `--json`, prints the body of the request that stores the template. Requires no cluster.
    """
    from stair_es.search.templates import build_template

    template = build_template(name, query_type, prefix=prefix)
    if as_json:
        emit_json(template.body)
    else:
        print_plain(template.source.rstrip("\n"))


@app.command(name="list")
@prepare_command
def list_templates_command(
    prefix: PrefixOption = _PREFIX, as_json: shared.JsonOption = False, *, connection: ConnectionArguments
) -> None:
    """List the templates and their states.

    **Examples**

    ```text
    stair-es template list
    stair-es template list --prefix acme- --json
    ```

    A template is `published`, `different` (stored by another version of stair-es, or edited) or `missing`.
    """
    from stair_es.search import templates

    with open_cluster(connection) as cluster:
        templates.check_template_support(cluster)
        states = {
            f"{prefix}{name}": templates.get_template_state(cluster, name, prefix=prefix) for name in templates.TEMPLATE_NAMES
        }
    _print_states(states, as_json)


@app.command(name="delete")
@prepare_command
def delete_templates_command(
    names: Annotated[list[str] | None, typer.Argument(help="Templates to delete. [default: all]", metavar="TEMPLATE")] = None,
    prefix: PrefixOption = _PREFIX,
    as_json: shared.JsonOption = False,
    *,
    connection: ConnectionArguments,
) -> None:
    """Delete templates from the cluster, including edited ones.

    **Examples**

    ```text
    stair-es template delete
    stair-es template delete match --prefix acme-
    ```
    """
    from stair_es.search import templates

    with open_cluster(connection) as cluster:
        templates.check_template_support(cluster)
        selected = dict.fromkeys(names or templates.TEMPLATE_NAMES)
        ids = [templates.build_template(name, templates.TEMPLATE_QUERY_TYPES[0], prefix=prefix).id for name in selected]
        results = {id_: "deleted" if templates.delete_template(cluster, id_) else "missing" for id_ in ids}
    _print_states(results, as_json)


def _print_left_out(selected: tuple[str, ...], supported: tuple[str, ...], is_explicit: bool, index: str) -> None:
    if "match" in supported:
        return
    if "match" in selected:
        print_notice(f"{index} has no field `impacts`: `match` will find nothing in it")
    elif not is_explicit:
        print_notice(f"`match` is omitted: {index} has no field `impacts` (ingest with --impact-field)")


def _print_states(states: Mapping[str, str], as_json: bool) -> None:
    if as_json:
        emit_json(states)
        return
    width = max(map(len, states))
    for id_, state in states.items():
        stdout.print(f"{id_:<{width}}  {state}", markup=False)
