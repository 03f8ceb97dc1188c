"""Error responses: the status, and no internal details."""

import pytest
from opensearchpy import exceptions

from stair_es import errors
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.client.exceptions import translate_errors
from stair_es.web.errors import ErrorResponse, build_error_response

SECRET = Connection(url="https://reader:hunter2@search.internal:9200")


def build_cluster_error(error: exceptions.TransportError) -> ErrorResponse:
    with pytest.raises(errors.ClusterError) as caught, translate_errors(SECRET):
        raise error
    return build_error_response(caught.value, SECRET)


def check_visitor_remedy(fault: ErrorResponse) -> None:
    """Check that a visitor is told something else than the commands for the operator of the cluster."""
    assert fault.remedy
    assert [fact for fact in ("_open", "stair-es", "modules") if fact in fault.remedy] == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.QueryError("no such word", "Take another."), 400),
        (errors.DecodeError("not an image"), 422),
        (errors.ClusterUnreachable("gone"), 503),
        (errors.IndexNotFound("there is no index"), 503),
        (errors.IndexMismatch("another model"), 503),
        (errors.ModelError("broken"), 503),
        (errors.MissingExtra("torch"), 503),
        (errors.ClusterError("odd"), 502),
        (errors.AuthenticationFailed("no"), 502),
        (errors.ResourceError("odd"), 500),
    ],
)
def test_each_error_has_a_status(error: errors.StairError, status: int) -> None:
    fault = build_error_response(error, SECRET)
    assert fault.status == status
    assert ("retry-after" in fault.build_response().headers) == (status == 503)


@pytest.mark.parametrize(
    ("status_code", "status"), [(400, 400), (429, 503), (500, 502), (502, 503), (503, 503), (504, 503), (404, 502)]
)
def test_the_status_of_the_cluster_becomes_a_status(status_code: int, status: int) -> None:
    assert build_cluster_error(exceptions.TransportError(status_code, "odd", {"error": {"reason": "odd"}})).status == status


def test_reraised_errors_keep_their_status() -> None:
    with pytest.raises(errors.ClusterError) as caught, translate_errors(SECRET):
        raise exceptions.TransportError(503, "busy", {})
    try:
        raise KeyError
    except KeyError:
        with pytest.raises(errors.ClusterError) as again:
            raise caught.value  # noqa: B904  as the view of the page does, for those who waited with the first
    assert build_error_response(again.value, SECRET).status == 503


def test_invalid_filters_are_client_errors() -> None:
    info = {"error": {"root_cause": [{"reason": "Failed to parse query [(]"}], "reason": "all shards failed"}}
    fault = build_cluster_error(exceptions.RequestError(400, "search_phase_execution_exception", info))
    assert fault.status == 400
    assert "query [(]" in fault.error


@pytest.mark.parametrize("status", [400, 500])
def test_too_many_clauses_are_the_client_s_fault(status: int) -> None:
    many = {"error": {"type": "too_many_nested_clauses", "reason": "maxClauseCount is set to 1024"}}
    fault = build_cluster_error(exceptions.TransportError(status, "too_many_nested_clauses", many))
    assert fault.status == 400
    assert "--weight-mass" in fault.remedy


def test_unsupported_queries_are_server_errors() -> None:
    info = {"error": {"type": "parsing_exception", "reason": "unknown query [sparse_vector]"}}
    fault = build_cluster_error(exceptions.RequestError(400, "parsing_exception", info))
    assert (fault.status, fault.code) == (502, "missing-module")
    assert "query [sparse_vector]" in fault.error
    check_visitor_remedy(fault)


def test_a_closed_index_is_not_the_visitor_s_fault() -> None:
    info = {"error": {"type": "index_closed_exception", "reason": "closed"}}
    fault = build_cluster_error(exceptions.RequestError(400, "index_closed_exception", info))
    assert (fault.status, fault.code) == (502, "index-closed")
    check_visitor_remedy(fault)


@pytest.mark.parametrize("words", ["unknown query [sparse_vector]", "No handler for type [sparse_vector] declared on field x"])
def test_filters_that_quote_errors_are_client_errors(words: str) -> None:
    """The response of OpenSearch."""
    reason = f"Failed to parse query [{words}]"
    parsed = {"type": "parse_exception", "reason": f'Cannot parse \'{words}\': Encountered " "]" "] "" at line 1'}
    cause = {"type": "query_shard_exception", "reason": reason, "caused_by": parsed}
    shards = [{"shard": 0, "reason": cause}]
    top = {"type": "search_phase_execution_exception", "reason": "all shards failed", "failed_shards": shards}
    info = {"error": {**top, "root_cause": [cause], "caused_by": cause}}
    fault = build_cluster_error(exceptions.RequestError(400, "search_phase_execution_exception", info))
    assert (fault.status, fault.code) == (400, "query-rejected")


def test_address_and_login_of_the_cluster_are_not_shown() -> None:
    info = {"error": {"reason": "hunter2 at https://search.internal:9200 is odd"}}
    for error in (
        exceptions.TransportError(500, "odd", info),
        exceptions.RequestError(400, "odd", info),
        exceptions.AuthenticationException(401, "odd", info),
        exceptions.AuthorizationException(403, "odd", info),
        exceptions.ConnectionError("N/A", "hunter2", OSError("search.internal")),
    ):
        response = str(build_cluster_error(error).to_json())
        assert "hunter2" not in response
        assert "search.internal" not in response


def test_paths_of_models_are_not_shown() -> None:
    response = build_error_response(errors.UnknownModel("unknown model '/home/anna/secret'", "Known: x."), SECRET).to_json()
    assert "anna" not in str(response)
