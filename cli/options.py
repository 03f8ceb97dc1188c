"""Options that several commands share, and the connection that they lead to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stair_es.config import DEFAULT_MODEL, ENV_FIT, ENV_INDEX, ENV_MODEL, ENV_URL
from stair_es.errors import UsageError
from stair_es.profiles import holds_password

from . import settings
from .injected import Injected
from .output import note

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stair_es.cluster.connect import Connection

Words = Annotated[list[str] | None, typer.Argument(help="What to look for, in plain words.")]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar=ENV_URL,
        show_envvar=True,
        help="The search cluster; several nodes with commas between. Without it the embedded node is used.",
    ),
]


def complete_models(incomplete: str) -> list[str]:
    """The names of the models that are installed, and the short ones of the hub's, for the shell."""
    from stair_es.model.catalogue import short_names

    return [name for name in short_names() if name.startswith(incomplete)]


def _index(help_text: str) -> Any:  # noqa: ANN401  a type for Typer
    return Annotated[str, typer.Option("--index", "-i", envvar=ENV_INDEX, show_envvar=True, help=help_text)]


WrittenIndex = _index("The index to write, by its alias.")
Index = _index("The index, by its alias.")
_MODEL_HELP = (
    "A model by name (`stair-es models` lists them), the folder of a checkpoint, or its id on the Hugging Face hub (org/name)."
)
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        envvar=ENV_MODEL,
        show_envvar=True,
        help=_MODEL_HELP,
        autocompletion=complete_models,
    ),
]
NamedModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        envvar=ENV_MODEL,
        show_envvar=True,
        help=_MODEL_HELP,
        autocompletion=complete_models,
        show_default=DEFAULT_MODEL,
    ),
]
"""The same, where it matters whether somebody named one: None is the default model."""


def index_model(help_text: str, **more: Any) -> Any:  # noqa: ANN401  an option for Typer
    """The option `--model` of a command that takes the model of the index where none is given."""
    return typer.Option("--model", "-m", autocompletion=complete_models, help=help_text, **more)


IndexModel = Annotated[str | None, index_model("A model. [default: the one of the index]", envvar=ENV_MODEL, show_envvar=True)]
"""The model to ask an index with: the one that is named, else the one that the index names."""

Json = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]
FitOption = Annotated[
    Literal["pad", "crop", "stretch"] | None,
    typer.Option(
        "--fit",
        envvar=ENV_FIT,
        show_envvar=True,
        help="How an image becomes the model's square: padded, the middle cut out, or distorted. [default: the model's own way]",
    ),
]
BackendOption = Annotated[
    Literal["auto", "onnx", "torch"],
    typer.Option("--backend", help="Runtime of the network: auto takes torch where CUDA is there, else onnxruntime."),
]
VectorOption = Annotated[
    Literal["rank_features", "sparse_vector", "seismic"],
    typer.Option(
        "--vector",
        help="How tokens are indexed: rank_features anywhere, sparse_vector on Elasticsearch, seismic with approximate search"
        " as well (OpenSearch 3.3 with neural-search).",
    ),
]
_TEXT_TOWER_HELP = "full runs the text network; table looks words up in a static table (lighter)."
TextTowerOption = Annotated[Literal["full", "table"], typer.Option("--text-tower", help=_TEXT_TOWER_HELP)]
IndexTextTower = Annotated[
    Literal["full", "table"] | None, typer.Option("--text-tower", help=_TEXT_TOWER_HELP, show_default="full")
]
"""The same for a command that takes the text tower of an index where none is given."""

AllowPrivateUrls = Annotated[
    bool, typer.Option("--allow-private-urls", help="Fetch from loopback, private and link-local addresses too.")
]


_PANEL = "Secure connection"


def _secure(name: str, help_text: str) -> Any:  # noqa: ANN401  a type for Typer
    variable = "STAIR_ES_" + name.upper().replace("-", "_")
    option = typer.Option(f"--{name}", envvar=variable, show_envvar=True, help=help_text, rich_help_panel=_PANEL)
    return Annotated[str | None, option]


_SECURE = {
    "ca_file": _secure("ca-file", "PEM file with the authorities to trust, in place of the system's."),
    "ca_fingerprint": _secure("ca-fingerprint", "SHA-256 of the authority's certificate, or of the server's own."),
    "client_cert": _secure("client-cert", "PEM file with the certificate to show (and its key)."),
    "client_key": _secure("client-key", "PEM file with the key of that certificate."),
    "aws_service": _secure("aws-service", "Sign requests for AWS: es, or aoss for Serverless."),
    "aws_region": _secure("aws-region", "Region to sign for; else what the AWS configuration says."),
}
_connected = Injected({**{name: (kind, None) for name, kind in _SECURE.items()}, "context": (typer.Context, None)})
connected = _connected.into
"""The command with the options of a secure connection besides its own; `connection` finds them by itself."""


def get_context() -> typer.Context | None:
    """Of the running `connected` command; None outside of one."""
    context: typer.Context | None = _connected.given["context"]
    return context


def connection(url: str | None) -> Connection:
    """The connection to `url`, or to the embedded node, which is started where it isn't running (stderr says so).

    Logins come from the environment, certificates and AWS from the options of a `connected` command or the environment; what
    the configuration file says of them is for the URL that it says.
    The embedded node gets none of them.

    Raises:
        UsageError: A password stands on the command line, or something doesn't go together.
    """
    named = named_connection(url)
    if named is not None:
        return named
    from stair_es.cluster.connect import Connection
    from stair_es.node import ensure_running

    node_url = ensure_running(say=note)
    note(f"no --url / {ENV_URL} given: using the embedded node at {node_url}")
    return Connection(url=node_url)


def named_connection(url: str | None) -> Connection | None:
    """The same, or None where no cluster is named.

    Raises:
        UsageError: A password stands on the command line, or something doesn't go together.
    """
    from stair_es.cluster.connect import Connection
    from stair_es.cluster.security import secret

    if url and url != os.environ.get(ENV_URL):
        refuse_password(url, ENV_URL)
    url = url or secret(ENV_URL)
    return Connection.from_env(url, *belonging(_connected.given, url)) if url else None


def running_connection(url: str | None) -> Connection | None:
    """The connection to the cluster that is named, else to the embedded node where it last listened; None if it never did.

    Nothing is started.

    Raises:
        UsageError: As for `named_connection`.
    """
    named = named_connection(url)
    if named is not None:
        return named
    from stair_es.cluster.connect import Connection
    from stair_es.node import state
    from stair_es.node.spec import NodeSpec

    known = state.read(NodeSpec.from_home().state_file)
    return Connection(url=known.url) if known and known.url else None


def belonging(given: Mapping[str, Any], url: str | None, prefix: str = "") -> tuple[dict[str, Any], dict[str, str]]:
    """Options and environment of a connection to `url`.

    Args:
        given: What a command was given, and its `context`.
        url: Of the cluster, or of the product.
        prefix: Of the options' names, as far as there is one.
    """
    context = given["context"]
    named = {name: value for name, value in given.items() if name != "context"}
    if context is None:
        return named, dict(os.environ)
    found = settings.of(context)
    return found.options(context, named, url, prefix), found.environ(url, prefix)


def refuse_password(url: str, variable: str) -> None:
    """Nothing, if no password is in `url`: only the environment, where `variable` has the same, may hold one.

    Raises:
        UsageError: One is.
    """
    if holds_password(url):
        prefix = variable.removesuffix("URL")
        raise UsageError(
            "a password on the command line can be read by everyone on this machine",
            f"Put the URL into {variable}, or the login into {prefix}USER and {prefix}PASSWORD (or {prefix}PASSWORD_FILE).",
        )
