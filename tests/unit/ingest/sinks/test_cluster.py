from typing import Any

import pytest

from stair_es.cluster.documents.document import DocumentSettings
from stair_es.errors import UsageError
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.sinks.cluster_options import ClusterSinkOptions
from stair_es.ingest.texts import TextIngestOptions
from stair_es.model.base import ModelSpec

MODEL = ModelSpec(name="stair-mini")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retain_indices": "many"}, "retain_indices=many"),
        ({"retain_indices": "-1"}, "retain_indices=-1"),
        ({"swap": "sometimes"}, "swap=sometimes"),
        ({"no_replicas_while_building": "true"}, "no_replicas_while_building=true"),
        ({"token_index": "maybe"}, "token_index=maybe"),
        ({"color": "red"}, "no option color"),
    ],
)
def test_invalid_options_are_rejected(options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ClusterSinkOptions().override(options)
    with pytest.raises(UsageError, match=message):
        IngestOptions(alias="a", model=MODEL, sink_options=options)


def test_options_belong_to_their_sink() -> None:
    assert IngestOptions(alias="a", model=MODEL).sink_options == ClusterSinkOptions()
    assert IngestOptions(alias="a", model=MODEL, sink_options={"swap": "never"}).sink_options == ClusterSinkOptions(swap="never")
    assert IngestOptions(alias="a", model=MODEL, sink="ndjson").sink_options == {}
    with pytest.raises(UsageError, match="ndjson"):
        IngestOptions(alias="a", model=MODEL, sink="ndjson", sink_options=ClusterSinkOptions())


@pytest.mark.parametrize("options", [{"runner": "ray"}, {"runner": "auto"}, {"document": DocumentSettings()}])
def test_texts_take_no_options_for_images(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        TextIngestOptions(alias="a", model=MODEL, **options)
