"""Errors for responses that Elasticsearch 8.17.0 and 9.5.3 without their modules gave."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from opensearchpy import exceptions
from support.errors import expect_error

from stair_es.cluster.client.connection import Connection
from stair_es.cluster.client.exceptions import translate_errors
from stair_es.cluster.index.lifecycle import create_index
from stair_es.errors import ClusterError, MissingModule

_CONNECTION = Connection(url="http://127.0.0.1:1")
_NO_MAPPER_8 = "No handler for type [rank_features] declared on field [tokens]"
_NO_MAPPER_9 = "The mapper type [rank_features] declared on field [tokens] does not exist."


def translate_error(error: dict[str, Any]) -> ClusterError:
    error_400 = exceptions.RequestError(400, error["type"], {"error": error, "status": 400})
    with pytest.raises(ClusterError) as translated, translate_errors(_CONNECTION):
        raise error_400
    return translated.value


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"Message": "Your request: '/_cluster/reroute' is not allowed."}, "request-unsupported"),
        ({"Message": "Your request: '/_cluster/settings' payload is not allowed."}, "request-unsupported"),
        ({"Message": "Your request: '/photos' is not allowed. Log in first."}, "login-refused"),
        ({"message": "The security token included in the request is invalid."}, "login-refused"),
        ("Unauthorized", "login-refused"),
    ],
)
def test_a_domain_refuses_requests_as_if_they_had_no_login(body: object, code: str) -> None:
    with expect_error(code, ClusterError), translate_errors(_CONNECTION):
        raise exceptions.AuthenticationException(401, "Unauthorized", body)


@pytest.mark.parametrize(
    ("zones", "name", "sent", "code"),
    [
        (2, "auto_expand_replicas", ["0-1"], ""),
        (3, "auto_expand_replicas", ["0-1", "0-2"], ""),
        (3, "number_of_replicas", ["1"], "copies-required"),
        (0, "auto_expand_replicas", ["0-1"], "cluster-error"),
    ],
)
def test_a_new_index_has_copies_in_all_zones_unless_its_user_chose_them(
    zones: int, name: str, sent: list[str], code: str
) -> None:
    tried = list[str]()

    def create(index: str, body: dict[str, Any]) -> None:
        tried.append(copies := body["settings"]["index"][name])
        if not zones or (int(copies[-1]) + 1) % zones:
            what = "total copies needs" if name == "number_of_replicas" else "max cap on auto expand"
            reason = f"expected {what} to be a multiple of total awareness attributes [{zones}];" if zones else index
            raise exceptions.RequestError(400, "illegal_argument_exception", {"error": {"reason": reason}})

    client: Any = SimpleNamespace(indices=SimpleNamespace(create=create))
    with expect_error(code, ClusterError) if code else nullcontext(), translate_errors(_CONNECTION):
        create_index(client, "photos", {"settings": {"index": {name: sent[0]}}})
    assert tried == sent


def build_parse_error(reason: str) -> dict[str, Any]:
    """What a query in a `bool` in a `bool` gives: the outer parts first."""
    inner = {"type": "named_object_not_found_exception", "reason": "[1:95] unknown field [sparse_vector]"}
    named = {"type": "parsing_exception", "reason": reason, "caused_by": inner}
    field = {"type": "x_content_parse_exception", "reason": "[1:95] [bool] failed to parse field [filter]", "caused_by": named}
    top = {"type": "parsing_exception", "reason": "Failed to parse"}
    return {**top, "root_cause": [top], "caused_by": field}


@pytest.mark.parametrize("reason", [_NO_MAPPER_8, _NO_MAPPER_9])
def test_a_missing_field_type_names_the_option(reason: str) -> None:
    root = {"type": "mapper_parsing_exception", "reason": f"Failed to parse mapping: {reason}"}
    error = translate_error({**root, "root_cause": [root], "caused_by": {"type": "mapper_parsing_exception", "reason": reason}})
    assert isinstance(error, MissingModule)
    assert error.message.count("[rank_features]") == 1
    assert "--vector sparse_vector" in error.remedy
    assert "mapper-extras" in error.remedy


def test_a_missing_query_names_the_other_field_type() -> None:
    root = {"type": "parsing_exception", "reason": "unknown query [sparse_vector]"}
    cause = {"type": "named_object_not_found_exception", "reason": "[1:29] unknown field [sparse_vector]"}
    error = translate_error({**root, "root_cause": [root], "caused_by": cause})
    assert isinstance(error, MissingModule)
    assert error.message.count("unknown query [sparse_vector]") == 1
    assert "--vector rank_features" in error.remedy


def test_a_missing_query_deep_in_another_is_named_as_well() -> None:
    error = translate_error(build_parse_error("unknown query [sparse_vector]"))
    assert isinstance(error, MissingModule)
    assert error.message.count("unknown query [sparse_vector]") == 1
    assert "--vector rank_features" in error.remedy


@pytest.mark.parametrize(
    "reason",
    [
        "cannot create index with name [photos-1], because it matches with template [ds] that creates data streams only",
        "All fields that match routing_path must be configured with [time_series_dimension: true] [uri] was not a dimension.",
    ],
)
def test_a_template_for_data_streams_has_a_remedy(reason: str) -> None:
    error = translate_error({"type": "illegal_argument_exception", "reason": reason})
    assert (type(error), "--index" in error.remedy) == (ClusterError, True)


def test_other_rejections_have_no_such_remedy() -> None:
    error = translate_error(build_parse_error("unknown query [geo]"))
    assert error.message.endswith("unknown query [geo]")
    assert (type(error), error.remedy) == (ClusterError, "")
