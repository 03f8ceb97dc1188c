"""Search templates: mustache scripts stored in the cluster, for searches with a few parameters from any language."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal, get_args

from stair_es.cluster.client.capabilities import get_cluster_info, list_cluster_plugins
from stair_es.cluster.client.exceptions import translate_errors
from stair_es.cluster.client.opensearch import exceptions
from stair_es.cluster.index.mappings import get_mappings_by_index
from stair_es.errors import ClusterError, QueryError, ResourceError, UnsupportedTarget, UsageError
from stair_es.search.dsl.select import IndexFields, select_query_type
from stair_es.types import TokensType

if TYPE_CHECKING:
    from stair_es.cluster.client.cluster import Cluster

TEMPLATE_QUERY_TYPES: tuple[TokensType, ...] = get_args(TokensType)
TEMPLATE_NAMES = ("tokens", "hybrid", "match")
TEMPLATE_PREFIX = "stair-es-"
"""Default prefix of template ids; another prefix separates tenants."""

TemplateState = Literal["published", "different", "missing"]
"""State of a template in the cluster: as this version publishes it, different, or missing."""
TemplateChange = Literal["created", "updated", "unchanged"]

_PART = re.compile(r"\{\{>\s*([a-z_]+)\s*\}\}")
_ID = re.compile(r"[^\s/\\?#\"*<>|,]+")


@dataclass(frozen=True, kw_only=True)
class SearchTemplate:
    """A search template, ready to be published."""

    id: str
    source: str
    """Mustache source that renders to the body of a `_search` request."""

    @property
    def body(self) -> dict[str, Any]:
        """The body of `PUT /_scripts/<id>`."""
        return {"script": {"lang": "mustache", "source": self.source}}


@dataclass(frozen=True, kw_only=True)
class SupportedTemplates:
    """The templates that an index supports."""

    query_type: TokensType
    names: tuple[str, ...]
    """The subset of `TEMPLATE_NAMES` that can find documents in it."""


def build_template(name: str, query_type: TokensType, *, prefix: str = TEMPLATE_PREFIX) -> SearchTemplate:
    """Build a template.

    Raises:
        UsageError: If there is no such template or query type, or if the prefix is not valid in an id.
    """
    if name not in TEMPLATE_NAMES:
        raise UsageError(f"unknown search template {name!r}", f"Available: {', '.join(TEMPLATE_NAMES)}.", code="unknown-template")
    if query_type not in TEMPLATE_QUERY_TYPES:
        raise UsageError(
            f"search templates don't support the query type {query_type!r}",
            f"Available: {', '.join(TEMPLATE_QUERY_TYPES)}.",
            code="no-template-for-query-type",
        )
    id_ = f"{prefix}{name}"
    if not _ID.fullmatch(id_):
        raise UsageError(
            f"{prefix!r} is not a valid prefix of a template id", "Use letters, digits, - and _.", code="invalid-template-prefix"
        )
    return SearchTemplate(id=id_, source=_expand_partials(name, query_type))


def check_template_support(cluster: Cluster) -> None:
    """Raise UnsupportedTarget if the product stores no scripts. No request is sent."""
    if cluster.product == "opensearch-serverless":
        raise UnsupportedTarget(
            "OpenSearch Serverless documents no stored scripts, which search templates are",
            "Send the query itself: stair-es query TEXT prints it.",
            code="no-stored-scripts",
        )


def detect_templates(cluster: Cluster, index: str) -> SupportedTemplates:
    """Detect which templates an index supports."""
    mappings = get_mappings_by_index(cluster, index)
    if not mappings:
        raise QueryError(
            f"there is no index {index!r} to detect the type of its `tokens`",
            f"Ingest first, or specify the type: --query-type {' or '.join(TEMPLATE_QUERY_TYPES)}.",
            code="index-not-found",
        )
    cluster_info = get_cluster_info(cluster)
    fields = [IndexFields.from_mapping(body.get("mappings", {}).get("properties", {})) for body in mappings.values()]
    query_types = {
        _parse_query_type(select_query_type(cluster_info, index_fields, lambda: list_cluster_plugins(cluster)))
        for index_fields in fields
    }
    if len(query_types) > 1:
        raise QueryError(
            f"the indices of {index!r} need different templates",
            "Publish for each of them, with --prefix.",
            code="templates-differ",
        )
    impacts = all(index_fields.impacts for index_fields in fields)
    return SupportedTemplates(
        query_type=query_types.pop(), names=tuple(name for name in TEMPLATE_NAMES if impacts or name != "match")
    )


def publish_template(cluster: Cluster, search_template: SearchTemplate) -> TemplateChange:
    """Publish a template, unless the cluster has it already."""
    stored = get_stored_source(cluster, search_template.id)
    if stored == search_template.source:
        return "unchanged"
    try:
        with translate_errors(cluster.connection, passthrough=_is_mustache_error):
            cluster.client.put_script(id=search_template.id, body=search_template.body)
    except exceptions.RequestError:
        raise ClusterError(
            f"{cluster.connection.safe_url} doesn't support mustache, so it can't store search templates",
            "OpenSearch and Elasticsearch include the module lang-mustache by default: check whether it was removed.",
            code="no-mustache",
        ) from None
    return "created" if stored is None else "updated"


def get_template_state(cluster: Cluster, name: str, *, prefix: str = TEMPLATE_PREFIX) -> TemplateState:
    """Get the state of a template in the cluster."""
    stored = get_stored_source(cluster, build_template(name, TEMPLATE_QUERY_TYPES[0], prefix=prefix).id)
    if stored is None:
        return "missing"
    sources = {build_template(name, query_type, prefix=prefix).source for query_type in TEMPLATE_QUERY_TYPES}
    return "published" if stored in sources else "different"


def get_stored_source(cluster: Cluster, id_: str) -> str | None:
    """Get the source of a stored script; None if it doesn't exist."""
    try:
        with translate_errors(cluster.connection, passthrough=lambda error: error.status_code == 404):
            response = cluster.client.get_script(id=id_)
    except exceptions.NotFoundError:
        return None
    return str(response["script"]["source"])


def delete_template(cluster: Cluster, id_: str) -> bool:
    """Delete a template from the cluster; return whether it existed."""
    try:
        with translate_errors(cluster.connection, passthrough=lambda error: error.status_code == 404):
            cluster.client.delete_script(id=id_)
    except exceptions.NotFoundError:
        return False
    return True


def _is_mustache_error(error: exceptions.TransportError) -> bool:
    return isinstance(error, exceptions.RequestError) and "mustache" in str(error.info)


def _expand_partials(name: str, query_type: TokensType) -> str:
    """Expand the `{{>partials}}` of a template file, which the engines don't support."""

    def read_part(match: re.Match[str]) -> str:
        return _read_resource(f"clause-{query_type}" if match[1] == "clause" else match[1]).strip()

    return _PART.sub(read_part, _read_resource(name))


def _read_resource(name: str) -> str:
    source = files("stair_es.search") / "templates" / f"{name}.mustache"
    try:
        return source.read_text(encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"search template {name!r}: can't read {source}: {error}", code="template-unreadable") from error


def _parse_query_type(query_type: str) -> TokensType:
    for supported in TEMPLATE_QUERY_TYPES:
        if query_type == supported:
            return supported
    raise QueryError(
        f"no search template supports the query type {query_type} of this index",
        f"Use --query-type {' or '.join(TEMPLATE_QUERY_TYPES)}.",
        code="no-template-for-query-type",
    )
