"""Search templates: mustache that is kept in the cluster, so that any language searches with a few parameters."""

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
"""Type of the field `tokens` that a template asks."""
FORMS: tuple[Form, ...] = get_args(Form)
NAMES = ("words", "hybrid", "match")
PREFIX = "stair-es-"
"""What a template's id begins with, unless another prefix keeps several tenants apart."""

State = Literal["published", "different", "missing"]
"""Of a template in the cluster: as this version would publish it, otherwise, or not there."""
Change = Literal["created", "updated", "unchanged"]

_PART = re.compile(r"\{\{>\s*([a-z_]+)\s*\}\}")
_ID = re.compile(r"[^\s/\\?#\"*<>|,]+")


@dataclass(frozen=True, kw_only=True)
class Template:
    """One of `NAMES`, ready to be published."""

    name: str
    id: str
    source: str
    """Mustache that renders to the body of a `_search` request."""

    @property
    def body(self) -> dict[str, Any]:
        """What `PUT /_scripts/<id>` takes."""
        return {"script": {"lang": "mustache", "source": self.source}}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What an index can use."""

    form: Form
    names: tuple[str, ...]
    """Those of `NAMES` that find something in it."""


def template(name: str, form: Form, *, prefix: str = PREFIX) -> Template:
    """The template called `name` for an index whose `tokens` are of type `form`.

    Raises:
        UsageError: No such template or form, or a prefix that can't be in an id.
    """
    if name not in NAMES:
        raise UsageError(f"no search template is called {name!r}", f"There are: {', '.join(NAMES)}.")
    if form not in FORMS:
        raise UsageError(f"search templates can't ask in the shape {form!r}", f"They can in: {', '.join(FORMS)}.")
    made = f"{prefix}{name}"
    if not _ID.fullmatch(made):
        raise UsageError(f"{prefix!r} can't begin the id of a search template", "Take letters, digits, - and _.")
    return Template(name=name, id=made, source=_whole(name, form))


def look(client: OpenSearch, connection: Connection, index: str) -> Wanted:
    """What templates an index can use.

    Raises:
        QueryError: There is no such index, or nothing in it that a template could ask.
        ClusterError: The cluster can't be asked.
    """
    answer = mappings_of(client, connection, index)
    if not answer:
        raise QueryError(
            f"there is no index {index!r} to see which form its `tokens` have",
            f"Ingest first, or say which one it will be: --shape {' or '.join(FORMS)}.",
        )
    target = probe(client, connection)
    properties = [found.get("mappings", {}).get("properties", {}) for found in answer.values()]
    fields = [Fields.from_mapping(each) for each in properties]
    forms = {_form(choose(target, each, lambda: plugins(client, connection))) for each in fields}
    if len(forms) > 1:
        raise QueryError(f"the indices behind {index!r} want different templates", "Publish for each of them, with --prefix.")
    impacts = all(each.impacts for each in fields)
    return Wanted(form=forms.pop(), names=tuple(name for name in NAMES if impacts or name != "match"))


def publish(client: OpenSearch, connection: Connection, wanted: Template) -> Change:
    """Put a template into the cluster, unless it is there already.

    Raises:
        ClusterError: The cluster has no mustache, or refuses.
    """
    stored = fetched(client, connection, wanted.id)
    if stored == wanted.source:
        return "unchanged"
    try:
        with translated(connection, but=lambda error: isinstance(error, RequestError) and "mustache" in str(error.info)):
            client.put_script(id=wanted.id, body=wanted.body)
    except RequestError:
        raise ClusterError(
            f"{connection.safe_url} knows no mustache, so it can't keep search templates",
            "Every ordinary OpenSearch and Elasticsearch has the module lang-mustache: has it been taken out?",
        ) from None
    return "created" if stored is None else "updated"


def state(client: OpenSearch, connection: Connection, name: str, *, prefix: str = PREFIX) -> State:
    """What the cluster has under the id of a template.

    Raises:
        ClusterError: The cluster can't be asked.
    """
    stored = fetched(client, connection, template(name, FORMS[0], prefix=prefix).id)
    if stored is None:
        return "missing"
    return "published" if stored in {template(name, form, prefix=prefix).source for form in FORMS} else "different"


def fetched(client: OpenSearch, connection: Connection, id_: str) -> str | None:
    """The source of a stored script, if there is one.

    Raises:
        ClusterError: The cluster can't be asked.
    """
    try:
        with translated(connection, but=lambda error: error.status_code == 404):
            answer = client.get_script(id=id_)
    except NotFoundError:
        return None
    return str(answer["script"]["source"])


def delete(client: OpenSearch, connection: Connection, id_: str) -> bool:
    """Take a template out of the cluster; whether it was there.

    Raises:
        ClusterError: The cluster refuses.
    """
    try:
        with translated(connection, but=lambda error: error.status_code == 404):
            client.delete_script(id=id_)
    except NotFoundError:
        return False
    return True


def _whole(name: str, form: Form) -> str:
    """A file with its `{{>parts}}` put in: the engines don't take partials."""

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
    raise QueryError(
        f"no search template asks in the shape {shape}, the one for this index", f"--shape takes {' or '.join(FORMS)}."
    )
