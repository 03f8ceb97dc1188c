"""Options of searches: the query, conditions on images, how the cluster is searched, and the encoder of queries.

The model is the one that the user named (`--model`, its environment variable, the configuration file), otherwise the one that the
index names: see `stair_es.search.index_encoder`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stair_es.config.defaults import DEFAULT_CAPTION_WEIGHT, DEFAULT_INDEX, DEFAULT_MODEL, DEFAULT_PRICE_FIELD
from stair_es.errors import StairError, UsageError
from stair_es.system.user_files import parse_json
from stair_es.types import QueryType, TextTower, is_utf8

from ..output.console import print_notice
from . import config_file, shared
from .connections import ConnectionArguments, resolve_connection, resolve_running_connection
from .shared import define_option

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stair_es.cluster.client.cluster import Cluster
    from stair_es.model.base import Encoder
    from stair_es.retry import RetryPolicy
    from stair_es.search.dsl.query_inputs import QueryInputs
    from stair_es.search.index_info import IndexInfo
    from stair_es.search.options import SearchOptions
    from stair_es.search.query import SearchQuery
    from stair_es.search.searcher import Searcher
    from stair_es.sources.base import ReadLimits

_CLUSTER_TIMEOUT_S = 3.0
"""Timeout of commands that work without a cluster."""
_QUERY, _CONDITIONS, _SEARCH = "Query", "Conditions on images", "Search"
_Texts = list[str] | None


@dataclass(frozen=True, kw_only=True)
class SearchArguments:
    """Search options of a command."""

    image: Annotated[_Texts, define_option("image", "Search by an image (repeatable).", _QUERY, metavar="FILE|URL")] = None
    allow_private_urls: shared.AllowPrivateUrlsOption = False
    text: Annotated[_Texts, define_option("text", "Search by a text without operators (repeatable).", _QUERY, metavar="TEXT")] = (
        None
    )
    weights: Annotated[
        str,
        define_option(
            "weights",
            "Weights of WORDS, each --text and each --image, in this order, such as 1,0.5. Negative weights subtract.",
            _QUERY,
            metavar="X,...",
        ),
    ] = ""
    boost: Annotated[
        _Texts,
        define_option("boost", "Multiply the weight of a token in the query, like dog^2 (repeatable).", _QUERY, metavar="WORD=X"),
    ] = None
    mute: Annotated[_Texts, define_option("mute", "Remove a token from the query (repeatable).", _QUERY, metavar="WORD")] = None
    literal: Annotated[bool, define_option("literal", "Treat +, - and ^ in WORDS as plain text.", _QUERY)] = False
    hybrid: Annotated[
        Literal["none", "sum", "rrf"],
        define_option(
            "hybrid",
            "How captions or titles count, if the index has them: each word adds its share, ranks are fused (rrf), or none.",
            _QUERY,
        ),
    ] = "sum"
    caption: Annotated[str, define_option("caption", "Text to search in captions. [default: WORDS]", _QUERY, metavar="TEXT")] = ""
    caption_weight: Annotated[
        float,
        define_option("caption-weight", "What a caption with each of the words adds to a score.", _QUERY, metavar="X", min=0.0),
    ] = DEFAULT_CAPTION_WEIGHT
    caption_field: Annotated[
        str,
        define_option(
            "caption-field",
            "Document fields of captions. [default: title,caption,text]",
            _QUERY,
            metavar="FIELD",
        ),
    ] = ""
    price_field: shared.PriceFieldOption = DEFAULT_PRICE_FIELD
    require: Annotated[
        _Texts,
        define_option("require", "Return only images with this token, like +dog (repeatable).", _CONDITIONS, metavar="WORD"),
    ] = None
    exclude: Annotated[
        _Texts,
        define_option("exclude", "Return only images without this token, like -dog (repeatable).", _CONDITIONS, metavar="WORD"),
    ] = None
    min_weight: Annotated[
        float,
        define_option(
            "min-weight",
            "Minimum weight at which --require and --exclude count a token as present.",
            _CONDITIONS,
            metavar="X",
            min=0.0,
        ),
    ] = 0.0
    filter_: Annotated[
        _Texts,
        define_option(
            "filter",
            "Return only images that match a query string (width:>800 AND format:JPEG) or a JSON query clause (repeatable).",
            _CONDITIONS,
            metavar="FILTER",
        ),
    ] = None
    min_score: Annotated[
        float | None, define_option("min-score", "Minimum score of a hit.", _CONDITIONS, metavar="X", min=0.0)
    ] = None
    query_type: Annotated[
        QueryType | None, define_option("query-type", "Query type. [default: chosen by cluster and index]", _SEARCH)
    ] = None
    weight_mass: Annotated[
        float | None,
        define_option(
            "weight-mass", "Send only the heaviest tokens that make up this share of the total weight.", _SEARCH, metavar="X"
        ),
    ] = None
    pipeline: Annotated[
        str | None, define_option("pipeline", "Search pipeline to use (OpenSearch).", _SEARCH, metavar="NAME")
    ] = None

    def parse_inputs(self, words: Sequence[str] | None, example: str) -> QueryInputs:
        """Parse the query from the words and the options.

        Raises:
            UsageError: If there is nothing to search for, or an option is invalid.
        """
        from stair_es.search.dsl.query_inputs import QueryInputs

        query_string = check_text_encoding(" ".join(words or ()).strip())
        texts = [check_text_encoding(text) for text in self.text or [] if text.strip()]
        images = check_image_arguments("--image", self.image or [])
        if not (query_string or texts or images or self.caption.strip()):
            raise UsageError(
                "nothing to search for: no words, no --text, no --image", f"Give one of them: {example}", code="no-input"
            )
        return QueryInputs(
            query_string=query_string,
            texts=texts,
            images=images,
            weights=_parse_weights(self.weights),
            literal=self.literal,
            required=self.require or [],
            excluded=self.exclude or [],
            boosts=dict(_parse_boost(text) for text in self.boost or []),
            muted=frozenset(self.mute or []),
            min_weight=self.min_weight,
            filters=self.filter_ or [],
            caption=self._check_caption(query_string),
            hybrid=self.hybrid != "none",
            caption_weight=self.caption_weight,
            caption_field=self.caption_field,
            price_field=self.price_field,
            min_score=self.min_score,
        )

    def _check_caption(self, query_string: str) -> str:
        if self.hybrid == "none":
            for name in ("caption", "caption_weight", "caption_field"):
                if getattr(self, name) != getattr(SearchArguments, name):
                    raise UsageError(
                        f"--{name.replace('_', '-')} is for captions, which --hybrid none leaves out",
                        "Omit one of them.",
                        code="option-without-hybrid",
                    )
        if self.hybrid == "rrf" and not (query_string or self.caption.strip()):
            raise UsageError("--hybrid rrf has no text for BM25", "Give words, or --caption TEXT.", code="hybrid-without-text")
        return check_text_encoding(self.caption)

    def build_limits(self) -> ReadLimits:
        """Return the limits for reading an image, and whether its URL may lead to private addresses."""
        return build_read_limits(allow_private=self.allow_private_urls)

    def build_options(self, *, explain_engine: bool = False, fold_duplicates: bool = False, sort: str = "") -> SearchOptions:
        """Return the search options; the arguments are those of one command."""
        from stair_es.search.options import SearchOptions

        return SearchOptions(
            query_type=self.query_type,
            weight_mass=self.weight_mass,
            fusion="rrf" if self.hybrid == "rrf" else "sum",
            search_pipeline=self.pipeline,
            explain_engine=explain_engine,
            fold_duplicates=fold_duplicates,
            sort=sort,
        )


@dataclass(frozen=True, kw_only=True)
class EncoderArguments:
    """Options for the encoder of queries."""

    model: shared.IndexModelOption = None
    fit: shared.FitOption = None
    backend: shared.BackendOption = "auto"
    text_tower: Annotated[TextTower | None, typer.Option("--text-tower", help=shared.TEXT_TOWER_HELP)] = "full"

    def load(self) -> Encoder:
        """Load the named model, otherwise the default one."""
        from stair_es.model import registry
        from stair_es.model.base import ModelSpec

        spec = ModelSpec(
            name=DEFAULT_MODEL if self.model is None else self.model,
            fit=self.fit,
            backend=self.backend,
            text_tower=self.text_tower or "full",
            settings=config_file.get_config().settings,
        )
        return registry.load_encoder(spec)

    def prepare_for_index(self, index: str) -> Callable[[IndexInfo], Encoder]:
        """Return a function that loads the named model, otherwise the one of the index; see `load_query_encoder`.

        The configuration is read now: the threads of a server don't have that of the command.
        """
        from stair_es.search.index_encoder import load_query_encoder

        return partial(
            load_query_encoder,
            index=index,
            model_name=self.model,
            fit=self.fit,
            backend=self.backend,
            text_tower=self.text_tower,
            settings=config_file.get_config().settings,
        )

    def load_checked(self, info: IndexInfo, index: str) -> Encoder:
        """Load the model for an index, and check that its vectors can be compared with those of the index.

        Raises:
            QueryError: If the model has changed since the ingest, or the fit differs from that of the index.
        """
        encoder = self.prepare_for_index(index)(info)
        info.check_model(encoder.model_id)
        return encoder

    def load_online(self, cluster: Cluster, index: str) -> Encoder:
        """Load the named model, otherwise the one of the index after a request for its metadata."""
        if self.model is not None:
            return self.load()
        from stair_es.search.index_encoder import load_index_encoder

        settings = config_file.get_config().settings
        return load_index_encoder(
            cluster, index, fit=self.fit, backend=self.backend, text_tower=self.text_tower, settings=settings
        )

    def load_offline(self, arguments: ConnectionArguments, index: str) -> tuple[Encoder, IndexInfo | None]:
        """Load the named model, otherwise the one of the index, or the default model if no cluster answers.

        The metadata of the index is None if the model is named, or if no cluster answers.
        """
        info = _read_index_info(arguments, index) if self.model is None else None
        return self.load() if info is None else self.load_checked(info, index), info


@dataclass(frozen=True, kw_only=True)
class TargetArguments:
    """Options for the index to search, its cluster, and the encoder of queries."""

    index: shared.IndexOption = DEFAULT_INDEX
    connection: ConnectionArguments
    encoder: EncoderArguments
    local: Annotated[
        Path | None,
        define_option(
            "local", "Words for this search alone, written by `stair-es teach --local`.", _QUERY, metavar="FILE", dir_okay=False
        ),
    ] = None

    def open_search(self, inputs: QueryInputs, limits: ReadLimits) -> tuple[SearchQuery, Searcher]:
        """Build the query of query inputs with the encoder of the index, and open a searcher for it."""
        from stair_es.search.query_encoder import build_search_query

        encoder, searcher = self.open_searcher()
        fields = searcher.list_search_fields(inputs.price_field)
        return build_search_query(encoder, inputs, limits, fields=fields), searcher

    def open_searcher(self, retry: RetryPolicy | None = None) -> tuple[Encoder, Searcher]:
        """Load the encoder of the index, and open a searcher for it, by default without retries."""
        from stair_es.cluster.client.cluster import Cluster
        from stair_es.cluster.client.retry import NO_RETRY
        from stair_es.model.taught_encoder import teach_encoder
        from stair_es.search.searcher import Searcher
        from stair_es.teaching.word_file import load_words

        words = load_words(self.local) if self.local else {}
        cluster = Cluster(resolve_connection(self.connection))
        encoder = self.encoder.load_online(cluster, self.index)
        searcher = Searcher(cluster, self.index, encoder.model_id, retry or NO_RETRY)
        return teach_encoder(encoder, searcher.info.taught_words, words), searcher


def parse_cursor(text: str) -> list[Any] | None:
    """Parse the cursor of a page, as `search` prints it; None for the first page (`start`), and for no pages (empty).

    Raises:
        UsageError: If it is not a cursor.
    """
    try:
        value = parse_json(text) if text not in ("", "start") else None
    except ValueError:
        value = ()
    if value is None or (isinstance(value, list) and value):
        return value
    raise UsageError(
        f"not a cursor: {text!r}",
        "Give --after `start`, then the cursor printed below the hits of each page, in quotes.",
        code="invalid-cursor",
    )


def _parse_weights(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise UsageError(
            f"--weights {text!r}: not comma-separated numbers", "For example: --weights 1,0.5", code="invalid-weights"
        ) from None


def _parse_boost(text: str) -> tuple[str, float]:
    from stair_es.search.dsl.query_parser import parse_factor

    word, _, number = text.rpartition("=")
    factor = parse_factor(number)
    if not word or factor is None:
        raise UsageError(
            f"--boost {text!r}: not WORD=NUMBER", "For example: --boost dog=2; 0 removes the word.", code="invalid-boost"
        )
    return word, factor


def _read_index_info(arguments: ConnectionArguments, index: str) -> IndexInfo | None:
    from stair_es.cluster.client.cluster import Cluster
    from stair_es.search.index_info import fetch_index_info

    try:
        connection = resolve_running_connection(arguments)
        if connection is None:
            return None
        connection = replace(connection, timeout_s=_CLUSTER_TIMEOUT_S)
        with Cluster(connection) as cluster:
            return fetch_index_info(cluster, index)
    except StairError as error:
        print_notice(f"using {DEFAULT_MODEL}, since the model of the index can't be read: {error.message}")
        return None


def check_image_arguments(name: str, images: Sequence[str]) -> list[str]:
    """Return the images; raise UsageError if one is neither a file nor a URL without a password."""
    from pathlib import Path

    from stair_es.sources.http.urls import find_credentials_error
    from stair_es.sources.image.read import is_http_url

    for image in map(check_text_encoding, images):
        problem = find_credentials_error(image) if is_http_url(image) else None
        if problem is not None:
            raise UsageError(f"{name}: {problem}", code="url-with-login")
        if not is_http_url(image) and not Path(image).is_file():
            raise UsageError(
                f"{name} {image!r}: there is no such file",
                "Specify an image file, or the http(s) URL of an image.",
                code="no-such-file",
            )
    return list(images)


def build_read_limits(*, allow_private: bool) -> ReadLimits:
    """Return the limits for reading an image, and whether its URL may lead to private addresses."""
    from stair_es.sources.base import ReadLimits, UrlPolicy

    return ReadLimits(url_policy=UrlPolicy(allow_private=allow_private))


def check_text_encoding(text: str) -> str:
    """Return the text; raise UsageError if its bytes are not valid in the encoding of the terminal."""
    if not is_utf8(text):
        raise UsageError(
            f"not valid text in the terminal's encoding: {text!r}",
            "Write it in UTF-8, with a UTF-8 locale.",
            code="invalid-encoding",
        )
    return text
