"""Search templates: mustache scripts stored in the cluster, for searches with a few parameters from any language."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal, get_args

from opensearchpy.exceptions import NotFoundError, RequestError

from stair_es.cluster.failures import translated
from stair_es.cluster.swap import mappings_of
from stair_es.cluster.target import plugins, probe
from stair_es.errors import ClusterError, QueryError, ResourceError, UsageError
from stair_es.search.shapes import Fields, choose

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from stair_es.cluster.connect import Connection

Form = Literal["rank_features", "sparse_vector"]
"""Type of the field `tokens` that a template searches."""
FORMS: tuple[Form, ...] = get_args(Form)
NAMES = ("words", "hybrid", "match")
PREFIX = "stair-es-"
"""Default prefix of template ids; another prefix separates tenants."""

State = Literal["published", "different", "missing"]
"""State of a template in the cluster: as this version publishes it, different, or missing."""
Change = Literal["created", "updated", "unchanged"]

_PART = re.compile(r"\{\{>\s*([a-z_]+)\s*\}\}")
_ID = re.compile(r"[^\s/\\?#\"*<>|,]+")


@dataclass(frozen=True, kw_only=True)
class Template:
    """A search template, ready to be published."""

    name: str
    id: str
    source: str
    """Mustache source that renders to the body of a `_search` request."""

    @property
    def body(self) -> dict[str, Any]:
        """The body of `PUT /_scripts/<id>`."""
        return {"script": {"lang": "mustache", "source": self.source}}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The templates that an index supports."""

    form: Form
    names: tuple[str, ...]
    """The subset of `TEMPLATE_NAMES` that can find documents in it."""


def template(name: str, form: Form, *, prefix: str = PREFIX) -> Template:
    """Build a template.

    Args:
        name: One of `TEMPLATE_NAMES`.
        form: The type of the field `tokens`.
        prefix: The prefix of the id.

    Raises:
        UsageError: If there is no such template or query type, or if the prefix is not valid in an id.
    """
    if name not in NAMES:
        raise UsageError(f"unknown search template {name!r}", f"Available: {', '.join(NAMES)}.")
    if form not in FORMS:
        raise UsageError(f"search templates don't support the query type {form!r}", f"Available: {', '.join(FORMS)}.")
    id_ = f"{prefix}{name}"
    if not _ID.fullmatch(id_):
        raise UsageError(f"{prefix!r} is not valid as prefix of a template id", "Use letters, digits, - and _.")
    return Template(name=name, id=id_, source=_whole(name, form))


def look(client: OpenSearch, connection: Connection, index: str) -> Wanted:
    """Detect which templates an index supports.

    Args:
        client: The client of the cluster.
        connection: The connection of the client.
        index: An alias or index.

    Raises:
        QueryError: If the index doesn't exist, or no template can search it.
        ClusterError: If a request fails.
    """
    answer = mappings_of(client, connection, index)
    if not answer:
        raise QueryError(
            f"there is no index {index!r} to detect the type of its `tokens`",
            f"Ingest first, or name the type: --shape {' or '.join(FORMS)}.",
        )
    target = probe(client, connection)
    properties = [found.get("mappings", {}).get("properties", {}) for found in answer.values()]
    fields = [Fields.from_mapping(each) for each in properties]
    forms = {_form(choose(target, each, lambda: plugins(client, connection))) for each in fields}
    if len(forms) > 1:
        raise QueryError(f"the indices of {index!r} need different templates", "Publish for each of them, with --prefix.")
    impacts = all(each.impacts for each in fields)
    return Wanted(form=forms.pop(), names=tuple(name for name in NAMES if impacts or name != "match"))


def publish(client: OpenSearch, connection: Connection, wanted: Template) -> Change:
    """Publish a template, unless the cluster has it already.

    Args:
        client: The client of the cluster.
        connection: The connection of the client.
        wanted: The template.

    Raises:
        ClusterError: If the cluster doesn't support mustache, or rejects the request.
    """
    stored = fetched(client, connection, wanted.id)
    if stored == wanted.source:
        return "unchanged"
    try:
        with translated(connection, but=lambda error: isinstance(error, RequestError) and "mustache" in str(error.info)):
            client.put_script(id=wanted.id, body=wanted.body)
    except RequestError:
        raise ClusterError(
            f"{connection.safe_url} doesn't support mustache, so it can't store search templates",
            "OpenSearch and Elasticsearch include the module lang-mustache by default: check whether it was removed.",
        ) from None
    return "created" if stored is None else "updated"


def state(client: OpenSearch, connection: Connection, name: str, *, prefix: str = PREFIX) -> State:
    """Get the state of a template in the cluster.

    Args:
        client: The client of the cluster.
        connection: The connection of the client.
        name: One of `TEMPLATE_NAMES`.
        prefix: The prefix of the id.

    Raises:
        ClusterError: If the request fails.
    """
    stored = fetched(client, connection, template(name, FORMS[0], prefix=prefix).id)
    if stored is None:
        return "missing"
    return "published" if stored in {template(name, form, prefix=prefix).source for form in FORMS} else "different"


def fetched(client: OpenSearch, connection: Connection, id_: str) -> str | None:
    """Get the source of a stored script; None if it doesn't exist.

    Raises:
        ClusterError: If the request fails.
    """
    try:
        with translated(connection, but=lambda error: error.status_code == 404):
            answer = client.get_script(id=id_)
    except NotFoundError:
        return None
    return str(answer["script"]["source"])


def delete(client: OpenSearch, connection: Connection, id_: str) -> bool:
    """Delete a template from the cluster; return whether it existed.

    Raises:
        ClusterError: If the cluster rejects the request.
    """
    try:
        with translated(connection, but=lambda error: error.status_code == 404):
            client.delete_script(id=id_)
    except NotFoundError:
        return False
    return True


def _whole(name: str, form: Form) -> str:
    """Expand the `{{>partials}}` of a template file, which the engines don't support."""

    def part(match: re.Match[str]) -> str:
        return _read(f"clause-{form}" if match[1] == "clause" else match[1]).strip()

    return _PART.sub(part, _read(name))


def _read(name: str) -> str:
    source = files("stair_es.search") / "templates" / f"{name}.mustache"
    try:
        return source.read_text(encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"search template {name!r}: can't read {source}: {error}") from error


def _form(shape: str) -> Form:
    for form in FORMS:
        if shape == form:
            return form
    raise QueryError(f"no search template supports the query type {shape} of this index", f"Use --shape {' or '.join(FORMS)}.")
