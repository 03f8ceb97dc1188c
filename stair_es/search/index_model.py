"""The model that an index names, for everything that asks an index: the command line, the page and Python.

An index is data, and whoever may write it may name any model in it. So the model that it names is only loaded from what this
machine has already chosen: an entry point, a folder that an ingest here has used, the cache of the hub. Nothing is fetched and no
other folder is looked at because an index says so, and no code of a checkpoint is trusted because of it
(`STAIR_ES_TRUST_REMOTE_CODE` names models, and only the user sets it).
"""

from __future__ import annotations

import shlex
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from stair_es.errors import ModelNotFetched, UnknownModel
from stair_es.model import catalogue
from stair_es.model.encoder import Backend, Encoder, ModelSpec, TextTower
from stair_es.search.known import Known, add_fit, look

if TYPE_CHECKING:
    from stair_es.cluster.connect import Connection
    from stair_es.types import Fit


def load_model(
    known: Known,
    index: str,
    *,
    named: str | None = None,
    fit: Fit | None = None,
    backend: Backend = "auto",
    text_tower: TextTower | None = None,
) -> Encoder:
    """Return the encoder to ask an index with: the model that the user named, else the one that the index names.

    Args:
        known: What was seen of the index.
        index: What it is called, for messages.
        named: What the user named, if anything. It is fetched where it isn't here.
        fit: How images become squares; where the model is the index's, that of the index without one. Vectors of another fit
            have another model id, and `Known.check_model` refuses them.
        backend: Of the network.
        text_tower: Of the texts; that of an index of texts without one.

    Raises:
        ModelNotFetched: The index names a model that isn't on this machine, or a folder that no ingest here has used.
        ModelError: The model is unknown or broken.
        MissingExtra: A library that it needs isn't installed.
    """
    asked = ModelSpec(
        name=named or known.model_name, fit=fit, backend=backend, text_tower=text_tower or known.text_tower or "full"
    )
    spec = add_fit(asked, known)
    if named:
        return catalogue.load(spec)
    try:
        return catalogue.load_local(spec)
    except (ModelNotFetched, UnknownModel) as error:
        what = f"the index {index!r} was written with {known.model_name}, which isn't installed here"
        raise ModelNotFetched(f"{what}: {error.message}", _remedy(known.model_name)) from error


def load_model_of(
    connection: Connection,
    index: str,
    *,
    fit: Fit | None = None,
    backend: Backend = "auto",
    text_tower: TextTower | None = None,
) -> Encoder:
    """Return the encoder of the model that an index names, after a look at the index. See `load_model`.

    Raises:
        QueryError: There is no such index.
        IndexMismatch: The index is not one of ours, or the name stands for indices of several models.
        ClusterError: The cluster fails the request.
        StairError: As for `load_model`.
    """
    with closing(connection.client()) as client:
        known = look(client, connection, index)
    return load_model(known, index, fit=fit, backend=backend, text_tower=text_tower)


def _remedy(name: str) -> str:
    if catalogue.hub_id(name):
        return (
            f"To fetch it, name it with --model {shlex.quote(name)} (in Python: model=ModelSpec(name={name!r})). An index alone "
            "makes nothing be downloaded."
        )
    if Path(name).is_absolute():
        return (
            f"If that folder is yours, name it: --model {shlex.quote(name)}, or where it is now. It is read because of an index "
            "only if an ingest here has used it."
        )
    return "Install the package that brings it, or name the folder that holds it now with --model FOLDER."
