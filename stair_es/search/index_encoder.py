"""Load the encoder that an index names, for the command line, the server and Python.

An index is data: anyone who can write to it can name any model. So the named model is only loaded from what this machine already
trusts: an entry point, a folder that an ingest on this machine has used, or the cache of the hub. An index alone never causes a
download, a look into another folder, or trust in the code of a checkpoint, and no question about it: see `own_code`.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from stair_es.config.settings import Settings
from stair_es.errors import ModelNotFetched, UnknownModel
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.model.taught_encoder import teach_encoder
from stair_es.search.index_info import IndexInfo, add_fit, fetch_index_info
from stair_es.types import Backend, TextTower

if TYPE_CHECKING:
    from stair_es.cluster.client.cluster import Cluster
    from stair_es.types import ResizeMode


def load_query_encoder(
    info: IndexInfo,
    index: str,
    *,
    model_name: str | None = None,
    fit: ResizeMode | None = None,
    backend: Backend = "auto",
    text_tower: TextTower | None = None,
    settings: Settings | None = None,
) -> Encoder:
    """Load the encoder for queries: the model that the user named, otherwise the one that the index names.

    It knows the words that the index was taught.

    Args:
        info: The index info.
        index: The name of the index, for messages.
        model_name: The model that the user named, if any. It is fetched if it is not on this machine.
        fit: How images are resized to squares; by default as in the index, if the model is that of the index. Vectors of another
            fit have another model id, which `IndexInfo.check_model` rejects.
        backend: The backend of the network.
        text_tower: The text tower; by default that of an index of texts.
        settings: The data folder and the trusted models; None for those of the environment.

    Raises:
        ModelNotFetched: If the index names a model that is not on this machine, or a folder that no ingest here has used.
        ModelError: If the model is unknown or can't be loaded.
        MissingExtra: If a library that it requires is not installed.
    """
    requested = ModelSpec(
        name=model_name or info.model_name,
        fit=fit,
        backend=backend,
        text_tower=text_tower or info.text_tower or "full",
        settings=settings,
    )
    spec = add_fit(requested, info)
    if model_name:
        return teach_encoder(registry.load_encoder(spec), info.taught_words)
    try:
        return teach_encoder(registry.load_local_encoder(spec), info.taught_words)
    except (ModelNotFetched, UnknownModel) as error:
        problem = f"the index {index!r} was written with {info.model_name}, which isn't installed here"
        raise ModelNotFetched(
            f"{problem}: {error.message}", _suggest_model(info.model_name), code="query-model-not-fetched"
        ) from error


def load_index_encoder(
    cluster: Cluster,
    index: str,
    *,
    fit: ResizeMode | None = None,
    backend: Backend = "auto",
    text_tower: TextTower | None = None,
    settings: Settings | None = None,
) -> Encoder:
    """Load the encoder of the model that an index names, after a request for its metadata.

    Raises:
        StairError: As for `fetch_index_info` and `load_query_encoder`.
    """
    info = fetch_index_info(cluster, index)
    return load_query_encoder(info, index, fit=fit, backend=backend, text_tower=text_tower, settings=settings)


def _suggest_model(name: str) -> str:
    if registry.find_hub_id(name):
        return (
            f"To fetch it, name it with --model {shlex.quote(name)} (in Python: model=ModelSpec(name={name!r})). An index alone "
            "never causes a download."
        )
    if Path(name).is_absolute():
        return (
            f"If you trust that folder, name it: --model {shlex.quote(name)}, or its new path. Otherwise the folder that an "
            "index names is read only if an ingest on this machine has used it."
        )
    return "Install the package that provides it, or specify the folder that contains it with --model FOLDER."
