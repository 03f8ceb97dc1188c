import pytest

from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.cluster.metadata.index_metadata import IndexSpec
from stair_es.errors import UsageError
from stair_es.ingest.sinks.base import SinkPlan
from stair_es.ingest.sinks.cluster import KIND


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
def test_invalid_options_are_rejected_before_any_request(options: dict[str, str], message: str) -> None:
    plan = SinkPlan(
        alias="a",
        index_spec=IndexSpec(model_name="m", model_id="m-1", settings={}),
        document=DocumentSettings(),
        connection=Connection(url="http://127.0.0.1:9"),
        options=options,
    )
    with pytest.raises(UsageError, match=message):
        KIND.open(plan)
