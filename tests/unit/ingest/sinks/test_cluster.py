import pytest

from stair_es.errors import UsageError
from stair_es.ingest.sinks.cluster_options import ClusterSinkOptions


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
