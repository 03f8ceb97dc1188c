from typing import Any

import pytest
from support.errors import expect_error

from stair_es.cluster.documents.document import DocumentSettings
from stair_es.errors import UsageError
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.sinks.cluster_options import ClusterSinkOptions
from stair_es.ingest.texts import TextIngestOptions
from stair_es.model.base import ModelSpec

MODEL = ModelSpec(name="stair-mini")


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("retain_indices", "many", "invalid-sink-option"),
        ("retain_indices", "-1", "invalid-sink-option"),
        ("swap", "sometimes", "invalid-sink-option"),
        ("no_replicas_while_building", "true", "invalid-sink-option"),
        ("token_index", "maybe", "invalid-sink-option"),
        ("color", "red", "unknown-sink-option"),
    ],
)
def test_invalid_options_are_rejected(name: str, value: str, code: str) -> None:
    with expect_error(code, UsageError) as caught:
        ClusterSinkOptions().override({name: value})
    assert name in caught.value.message
    with expect_error(code, UsageError):
        IngestOptions(alias="a", model=MODEL, sink_options={name: value})


def test_options_belong_to_their_sink() -> None:
    assert IngestOptions(alias="a", model=MODEL).sink_options == ClusterSinkOptions()
    assert IngestOptions(alias="a", model=MODEL, sink_options={"swap": "never"}).sink_options == ClusterSinkOptions(swap="never")
    assert IngestOptions(alias="a", model=MODEL, sink="ndjson").sink_options == {}
    with expect_error("options-of-other-sink"):
        IngestOptions(alias="a", model=MODEL, sink="ndjson", sink_options=ClusterSinkOptions())


@pytest.mark.parametrize("options", [{"runner": "ray"}, {"runner": "auto"}, {"document": DocumentSettings()}])
def test_texts_take_no_options_for_images(options: dict[str, Any]) -> None:
    with expect_error("invalid-text-options"):
        TextIngestOptions(alias="a", model=MODEL, **options)
