"""The roles for OpenSearch's security plugin and for Elasticsearch, as the documentation has them, for tests that try them.

::

    roles = read_roles("opensearch")  # {"photos_reader": {"cluster_permissions": [...], "index_permissions": [...]}, ...}
    remove_right(roles["photos_reader"], "indices:data/read/search")
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

PAGE = "docs/howto/secure.md"
"""The page with all roles."""
Engine = Literal["opensearch", "elasticsearch"]
_DOCS = Path(__file__).resolve().parents[3] / "docs"
_PATHS: Mapping[Engine, str] = {"opensearch": "/_plugins/_security/api/roles/", "elasticsearch": "/_security/role/"}
_OF_CLUSTER, _OF_INDICES = ("cluster_permissions", "cluster"), ("index_permissions", "indices")
_ACTIONS = ("allowed_actions", "privileges")
"""The keys of a role, for each engine."""

Role = Mapping[str, Any]


def read_roles(engine: Engine) -> dict[str, Role]:
    """Return each role by its name.

    Raises:
        ValueError: If a role is there twice, or on another page.
    """
    pattern = re.compile(rf"^```json\nPUT {_PATHS[engine]}(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    roles: dict[str, Role] = {}
    for page in sorted(_DOCS.rglob("*.md")):
        for name, body in pattern.findall(page.read_text(encoding="utf-8")):
            if name in roles or page != _DOCS.parent / PAGE:
                raise ValueError(f"{page}: the role {name} belongs on {PAGE} alone, once")
            roles[name] = json.loads(body)
    return roles


def list_rights(role: Role) -> list[str]:
    """Return its actions or privileges: of the cluster, then of indices."""
    found = [right for key in _OF_CLUSTER for right in role.get(key, ())]
    parts = [part for key in _OF_INDICES for part in role.get(key, ())]
    return [*found, *(right for part in parts for key in _ACTIONS for right in part.get(key, ()))]


def remove_right(role: Role, right: str) -> Role:
    """Return the role without one of its actions."""

    def remove(values: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
        return {key: [each for each in value if each != right] if key in keys else value for key, value in values.items()}

    kept = remove(role, _OF_CLUSTER)
    for key in _OF_INDICES:
        parts = [remove(part, _ACTIONS) for part in kept.get(key, ())]
        if key in kept:  # Elasticsearch refuses a part without privileges
            kept[key] = [part for part in parts if any(part.get(actions) for actions in _ACTIONS)]
    return kept
