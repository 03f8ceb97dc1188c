"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stair_es.config.defaults import DEFAULT_MODEL, ENV_FIT, ENV_INDEX, ENV_MODEL, ENV_URL, MAX_BYTES, MAX_HITS, MAX_PIXELS
from stair_es.types import Backend, Fit, Precision, ResizeMode, TextTower, TokensType

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from stair_es.cluster.client.connection import Connection
    from stair_es.ingest.sinks.live import LiveIndex
    from stair_es.sources.base import ReadLimits
    from stair_es.web.encoding.service import EncodingTarget

LAST_PANEL = "Secure connection"
"""Panel that is the last one in the help of every command."""
EXECUTION_PANEL, SOURCES_PANEL = "Execution", "Sources"


def define_option(name: str, help_text: str, panel: str, **more: Any) -> Any:  # noqa: ANN401  an option for Typer
    """Return the option `--NAME` in a panel of the help."""
    return typer.Option(f"--{name}", help=help_text, rich_help_panel=panel, **more)


QueryWordsArgument = Annotated[list[str] | None, typer.Argument(metavar="WORDS", help="Query text.")]
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar=ENV_URL,
        show_envvar=True,
        metavar="URL,...",
        help="URL of the search cluster; separate several nodes with commas. [default: the embedded node]",
    ),
]


def complete_models(incomplete: str) -> list[str]:
    """Return the names of installed models and the short names of hub models, for shell completion."""
    from stair_es.model.registry import list_short_names

    return [name for name in list_short_names() if name.startswith(incomplete)]


IndexOption = Annotated[
    str, typer.Option("--index", "-i", envvar=ENV_INDEX, show_envvar=True, metavar="ALIAS", help="Alias of the index.")
]
_MODEL_HELP = "Model name (see `stair-es models`), checkpoint folder, or id on the Hugging Face hub (ORG/NAME)."
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        envvar=ENV_MODEL,
        show_envvar=True,
        help=_MODEL_HELP,
        autocompletion=complete_models,
    ),
]
OptionalModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        envvar=ENV_MODEL,
        show_envvar=True,
        help=_MODEL_HELP,
        autocompletion=complete_models,
        show_default=DEFAULT_MODEL,
    ),
]
"""Option `--model` that is None unless given, for commands that need to know."""


def define_index_model_option(help_text: str, **more: Any) -> Any:  # noqa: ANN401  an option for Typer
    """Return the option `--model` of a command that uses the model of the index by default."""
    return typer.Option("--model", "-m", metavar="MODEL", autocompletion=complete_models, help=help_text, **more)


IndexModelOption = Annotated[
    str | None,
    define_index_model_option(
        "Model name, checkpoint folder or hub id. [default: the model of the index]", envvar=ENV_MODEL, show_envvar=True
    ),
]
"""Option `--model` of a command that uses the model of the index by default."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]
FitOption = Annotated[
    Fit | None,
    typer.Option(
        "--fit",
        envvar=ENV_FIT,
        show_envvar=True,
        help="Make images square by padding, center cropping or stretching. [default: as the model was trained]",
    ),
]
BackendOption = Annotated[
    Backend,
    typer.Option("--backend", help="Inference runtime; `auto` uses torch if CUDA is available, otherwise onnxruntime."),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision", help="Precision of the torch backend; `auto` is `bf16` on GPUs that support it, otherwise `fp32`."
    ),
]
VectorOption = Annotated[
    TokensType,
    typer.Option(
        "--vector",
        help="Field type of the tokens. `rank_features` works on every cluster; `sparse_vector` requires Elasticsearch.",
    ),
]
TEXT_TOWER_HELP = "How to encode text: `full` runs the text network, `table` looks tokens up in a static table (faster)."
TextTowerOption = Annotated[TextTower, typer.Option("--text-tower", help=TEXT_TOWER_HELP)]
IndexTextTowerOption = Annotated[TextTower | None, typer.Option("--text-tower", help=TEXT_TOWER_HELP, show_default="full")]
"""Option `--text-tower` of a command that uses the text tower of the index by default."""

RayAddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        envvar="RAY_ADDRESS",
        show_envvar=True,
        metavar="ADDRESS",
        help="Address of a running Ray cluster.",
        rich_help_panel=EXECUTION_PANEL,
    ),
]
PriceFieldOption = Annotated[
    str, typer.Option("--price-field", metavar="FIELD", help="Document field for prices in a query, such as `under 40`.")
]
HitsOption = Annotated[int, typer.Option("-k", metavar="N", min=1, max=MAX_HITS, help="Number of hits to return.")]
CursorOption = Annotated[
    str,
    typer.Option(
        "--after",
        help="Page of hits to return: `start`, or the cursor that `search` prints below the previous page.",
        metavar="CURSOR",
    ),
]
AllowPrivateUrlsOption = Annotated[
    bool, typer.Option("--allow-private-urls", help="Allow image URLs that resolve to loopback, private or link-local addresses.")
]


@dataclass(frozen=True, kw_only=True)
class ReadArguments:
    """Limits on reading images."""

    allow_private_urls: AllowPrivateUrlsOption = False
    url_timeout_s: Annotated[
        float, define_option("url-timeout", "Timeout per image URL.", SOURCES_PANEL, min=0.1, metavar="SECONDS")
    ] = 30.0
    url_patience_s: Annotated[
        float,
        define_option(
            "url-patience",
            "Total time to wait for a host that sends Retry-After; other hosts are not delayed.",
            SOURCES_PANEL,
            metavar="SECONDS",
            min=0.0,
            max=86400.0,
        ),
    ] = 600.0
    max_pixels: Annotated[
        int,
        define_option(
            "max-pixels", "Reject images with more pixels than this (decompression bombs).", SOURCES_PANEL, metavar="N", min=1
        ),
    ] = MAX_PIXELS
    max_bytes: Annotated[
        int, define_option("max-bytes", "Reject files larger than this.", SOURCES_PANEL, metavar="BYTES", min=1)
    ] = MAX_BYTES

    def build_read_limits(self) -> ReadLimits:
        """Build the limits on reading images."""
        from stair_es.sources.base import ReadLimits, UrlPolicy

        policy = UrlPolicy(allow_private=self.allow_private_urls, timeout_s=self.url_timeout_s, patience_s=self.url_patience_s)
        return ReadLimits(max_bytes=self.max_bytes, max_pixels=self.max_pixels, url_policy=policy)


@dataclass(frozen=True, kw_only=True)
class ServiceArguments:
    """Options for the load of the encoder, and for what clients may write."""

    max_batch: Annotated[
        int, typer.Option("--max-batch", metavar="N", min=1, max=1024, help="Maximum number of texts to encode in one batch.")
    ] = 32
    max_waiting: Annotated[
        int,
        typer.Option(
            "--max-waiting",
            metavar="N",
            min=1,
            help="Maximum number of queued texts, and of queued images. Requests beyond it get HTTP status 429.",
        ),
    ] = 256
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, metavar="SECONDS", help="Time after which a request gets HTTP status 503.")
    ] = 30.0
    write_index: Annotated[
        list[str] | None,
        typer.Option(
            "--write-index",
            metavar="ALIAS",
            help="Allow clients to write and delete documents of this index, with /v1/documents (repeatable).",
        ),
    ] = None
    allow_private_urls: AllowPrivateUrlsOption = False

    def open_indices(
        self, connection: Connection | None, model: str | None, fit: ResizeMode | None, target: EncodingTarget
    ) -> AbstractContextManager[dict[str, LiveIndex]]:
        """Open the indices that clients may write; a missing one is created for the model."""
        from stair_es.ingest.sinks.live import open_live_indices
        from stair_es.model.base import ModelSpec

        from . import config_file

        name = model or (target.state.info.model_name if target.state else DEFAULT_MODEL)
        spec = ModelSpec(name=name, fit=fit, settings=config_file.get_config().settings)
        return open_live_indices(connection, self.write_index or (), spec, target.encoder)
