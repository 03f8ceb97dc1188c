"""A secured node with a user for each role of the documentation, and one for each right of a role who lacks that.

::

    secured = SecuredCluster(node=node, engine="opensearch", folder=tmp_path)
    secured.put_users()
    secured.read_output("photos_reader", "search", "a cat")
    secured.read_error(secured.get_restricted_name("photos_reader", "indices:data/read/search"), "search", "a cat")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from typer.testing import CliRunner, Result

from stair_es.cli.main import app
from stair_es.cluster.client.auth import SecuritySettings
from stair_es.cluster.client.connection import Connection
from stair_es.doctor.result import CheckResult
from stair_es.doctor.run import CheckContext, check_cluster
from stair_es.errors import StairError
from support.nodes.documented_roles import Engine, Role, list_rights, read_roles, remove_right
from support.nodes.secured_node import SecuredNode

PASSWORD = "kA7#xQ/@9%:?& ü"
"""Of every user: signs that have a meaning in URLs, headers and shells."""
ROLES = {engine: read_roles(engine) for engine in get_args(Engine)}
"""Engine -> name -> role."""
BESIDE = {
    "photos_policies": ["photos_writer"],
    "photos_templates": ["photos_reader"],
    "photos_template_client": ["photos_reader"],
    "photos_dashboards": ["photos_reader"],
    "photos_doctor": ["photos_reader"],
}
"""What a user has besides, as the page says."""


@dataclass(frozen=True, kw_only=True)
class SecuredCluster:
    """The node, and the command as one of its users runs it in this process."""

    node: SecuredNode
    engine: Engine
    folder: Path

    @property
    def roles(self) -> Mapping[str, Role]:
        """The documented roles by their names."""
        return ROLES[self.engine]

    def build_connection(self, user: str) -> Connection:
        """Return one with the login of a user."""
        return Connection(
            url=self.node.url, security=SecuritySettings(user=user, password=PASSWORD, ca_file=str(self.node.ca_file))
        )

    def run(self, user: str | Mapping[str, str], *arguments: object, index: str = "photos") -> Result:
        """Run the command to its end, as one of the users or with the variables of another login."""
        login = {"STAIR_ES_USER": user, "STAIR_ES_PASSWORD": PASSWORD} if isinstance(user, str) else user
        trust = {} if "STAIR_ES_CA_FINGERPRINT" in login else {"STAIR_ES_CA_FILE": str(self.node.ca_file)}
        environment = {"STAIR_ES_URL": self.node.url, "STAIR_ES_INDEX": index, **trust, **login}
        return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)

    def read_output(self, user: str | Mapping[str, str], *arguments: object, index: str = "photos") -> str:
        """Run the command; return what it printed.

        Raises:
            AssertionError: It failed.
        """
        result = self.run(user, *arguments, index=index)
        if result.exit_code:
            raise AssertionError(result.exception, result.output)
        return result.stdout

    def read_error(self, user: str | Mapping[str, str], *arguments: object, index: str = "photos") -> StairError:
        """Run the command; return why it failed.

        Raises:
            AssertionError: It didn't, or broke.
        """
        result = self.run(user, *arguments, index=index)
        if not isinstance(result.exception, StairError):
            raise AssertionError(result.exception, result.output)
        return result.exception

    def run_doctor(self, user: str) -> list[CheckResult]:
        """Return the results of the doctor for the index `photos`."""
        context = CheckContext(connect=lambda: self.build_connection(user), index="photos", model="colors", is_model_named=False)
        return list(check_cluster(context))

    @property
    def policy(self) -> Path:
        """A policy for images of the model `colors`."""
        return self.folder / "policy.json"

    def put_users(self) -> None:
        """Make a user for each role, and one for each right of a role who lacks that."""
        roles: dict[str, Role] = {}
        users: dict[str, list[str]] = {}
        for name, role in self.roles.items():
            lacking = {self.get_restricted_name(name, right): remove_right(role, right) for right in list_rights(role)}
            roles |= {name: role, **lacking}
            users |= {user: [user, *BESIDE.get(name, [])] for user in (name, *lacking)}
        self.node.put_roles(roles)
        self.node.put_users(users, PASSWORD)

    def get_restricted_name(self, role: str, right: str) -> str:
        """Return the user, and the role, without a right."""
        return f"{role}_{list_rights(self.roles[role]).index(right)}"
