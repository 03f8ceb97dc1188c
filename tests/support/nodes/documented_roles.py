"""The roles for OpenSearch's security plugin, as the documentation has them, for tests that try them.

::

    roles = read_roles()  # {"photos_reader": {"cluster_permissions": [...], "index_permissions": [...]}, ...}
    remove_right(roles["photos_reader"], "indices:data/read/search")
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAGE = "docs/howto/secure.md"
"""The page with all roles."""
_DOCS = Path(__file__).resolve().parents[3] / "docs"
_ROLE = re.compile(r"^```json\nPUT /_plugins/_security/api/roles/(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

Role = Mapping[str, Any]


def read_roles() -> dict[str, Role]:
    """Return each role by its name.

    Raises:
        ValueError: If a role is there twice, or on another page.
    """
    roles: dict[str, Role] = {}
    for page in sorted(_DOCS.rglob("*.md")):
        for name, body in _ROLE.findall(page.read_text(encoding="utf-8")):
            if name in roles or page != _DOCS.parent / PAGE:
                raise ValueError(f"{page}: the role {name} belongs on {PAGE} alone, once")
            roles[name] = json.loads(body)
    return roles


def list_rights(role: Role) -> list[str]:
    """Return its actions."""
    of_indices = [right for part in role.get("index_permissions", ()) for right in part["allowed_actions"]]
    return [*role["cluster_permissions"], *of_indices]


def remove_right(role: Role, right: str) -> Role:
    """Return the role without one of its actions."""
    parts = [
        {**part, "allowed_actions": [each for each in part["allowed_actions"] if each != right]}
        for part in role.get("index_permissions", ())
    ]
    return {"cluster_permissions": [each for each in role["cluster_permissions"] if each != right], "index_permissions": parts}
