"""A secured node with a user for each role of the documentation, and one for each right of a role who lacks that.

::

    put_users(node)
    secured = SecuredCluster(node=node, folder=tmp_path)
    secured.read_output("photos_reader", "search", "a cat")
    secured.read_error(get_restricted_name("photos_reader", "indices:data/read/search"), "search", "a cat")
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner, Result

from stair_es.cli.main import app
from stair_es.cluster.client.auth import SecuritySettings
from stair_es.cluster.client.connection import Connection
from stair_es.doctor.result import CheckResult
from stair_es.doctor.run import CheckContext, check_cluster
from stair_es.errors import StairError
from support.nodes.documented_roles import list_rights, read_roles, remove_right
from support.nodes.opensearch_nodes import SecuredNode

PASSWORD = "kA7#xQ/@9%:?& ü"
"""Of every user: signs that have a meaning in URLs, headers and shells."""
ROLES = read_roles()
BESIDE = {
    "photos_policies": ["photos_writer"],
    "photos_templates": ["photos_reader"],
    "photos_template_client": ["photos_reader"],
    "photos_doctor": ["photos_reader"],
}
"""What a user has besides, as the page says."""


@dataclass(frozen=True, kw_only=True)
class SecuredCluster:
    """The node, and the command as one of its users runs it in this process."""

    node: SecuredNode
    folder: Path

    def build_connection(self, user: str) -> Connection:
        """Return one with the login of a user."""
        return Connection(
            url=self.node.url, security=SecuritySettings(user=user, password=PASSWORD, ca_file=str(self.node.ca_file))
        )

    def run(self, user: str, *arguments: object, index: str = "photos") -> Result:
        """Run the command to its end."""
        environment = {
            "STAIR_ES_URL": self.node.url,
            "STAIR_ES_CA_FILE": str(self.node.ca_file),
            "STAIR_ES_USER": user,
            "STAIR_ES_PASSWORD": PASSWORD,
            "STAIR_ES_INDEX": index,
        }
        return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)

    def read_output(self, user: str, *arguments: object, index: str = "photos") -> str:
        """Run the command; return what it printed.

        Raises:
            AssertionError: It failed.
        """
        result = self.run(user, *arguments, index=index)
        if result.exit_code:
            raise AssertionError(result.exception, result.output)
        return result.stdout

    def read_error(self, user: str, *arguments: object, index: str = "photos") -> StairError:
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


def put_users(node: SecuredNode) -> None:
    """Make all roles and users."""
    lacking = {(role, right): get_restricted_name(role, right) for role in ROLES for right in list_rights(ROLES[role])}
    node.put_roles({**ROLES, **{name: remove_right(ROLES[role], right) for (role, right), name in lacking.items()}})
    roles = {**{role: role for role in ROLES}, **{name: role for (role, _), name in lacking.items()}}
    node.put_users({name: [name, *BESIDE.get(role, [])] for name, role in roles.items()}, PASSWORD)


def get_restricted_name(role: str, right: str) -> str:
    """Return the user, and the role, without a right."""
    return f"{role}_{list_rights(ROLES[role]).index(right)}"
