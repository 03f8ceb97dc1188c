"""Create an index with the settings that its cluster accepts."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Mapping
from typing import Any

from stair_es.cluster.client.exceptions import get_copies_multiple
from stair_es.cluster.client.opensearch import OpenSearch, exceptions
from stair_es.cluster.client.products import SERVERLESS, ManagedProduct
from stair_es.cluster.metadata.index_metadata import INDEX_ID

logger = logging.getLogger(__name__)

_NODE_SETTINGS = re.compile(r"(index\.)?(number_of_shards|number_of_replicas|auto_expand_replicas)")
_OTHER_SETTINGS: Mapping[ManagedProduct, re.Pattern[str]] = {
    # AWS doesn't document that -1 is ignored: it could hide documents forever.
    "opensearch-serverless": re.compile(r"(index\.)?refresh_interval"),
    "elasticsearch-serverless": re.compile(r"(index\.)?mapping\.exclude_source_vectors"),
}


def fit_index_body(body: Mapping[str, Any], product: ManagedProduct) -> dict[str, Any]:
    """Fit the body of a new index to a product: a serverless one manages shards and replicas, and may not tell a UUID.

    An index that reports no UUID is recognized by a random id in its `_meta.stair_es`. Pure, except for that.
    """
    if product not in SERVERLESS:
        return dict(body)
    mappings = body.get("mappings", {})
    meta = mappings.get("_meta", {})
    own_meta = {**meta.get("stair_es", {}), INDEX_ID: uuid.uuid4().hex}
    return {
        **body,
        "settings": _drop_settings(body.get("settings", {}), product),
        "mappings": {**mappings, "_meta": {**meta, "stair_es": own_meta}},
    }


def _drop_settings(settings: Mapping[str, Any], product: ManagedProduct, prefix: str = "") -> dict[str, Any]:
    """Drop the settings that a product manages, however they are nested, and objects that lose all of theirs."""
    kept: dict[str, Any] = {}
    for name, value in settings.items():
        path = f"{prefix}{name}"
        if _NODE_SETTINGS.fullmatch(path) or _OTHER_SETTINGS[product].fullmatch(path):
            continue
        rest = _drop_settings(value, product, f"{path}.") if isinstance(value, dict) else value
        if rest != {} or value == {}:
            kept[name] = rest
    return kept


def create_index(client: OpenSearch, name: str, body: Mapping[str, Any]) -> None:
    """Create an index in one attempt, with more replicas if the cluster requires them in each zone; raises client errors."""
    try:
        client.indices.create(index=name, body=dict(body))
    except exceptions.TransportError as error:
        copies, settings = get_copies_multiple(error.info), body.get("settings", {})
        if not copies or "auto_expand_replicas" not in settings.get("index", {}):
            raise
        logger.info("%s gets %s copies of its documents: the cluster requires a multiple of its zones", name, copies)
        index = {**settings["index"], "auto_expand_replicas": f"0-{copies - 1}"}
        client.indices.create(index=name, body={**body, "settings": {**settings, "index": index}})
