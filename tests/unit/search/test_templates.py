"""Search templates without a cluster: their source, and the quotes around every value."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from support.errors import expect_error
from typer.testing import CliRunner

from stair_es.cli.main import app
from stair_es.errors import UsageError
from stair_es.search.templates import TEMPLATE_NAMES, TEMPLATE_QUERY_TYPES, build_template
from stair_es.types import TokensType

ALL = [(name, query_type) for name in TEMPLATE_NAMES for query_type in TEMPLATE_QUERY_TYPES]
CONTROLLED = r"\{\{#toJson\}\}filter\{\{/toJson\}\}"
"""Renders to JSON of its own; only inside of a section that lists alone can open."""


@pytest.mark.parametrize(("name", "query_type"), ALL)
def test_every_value_is_quoted(name: str, query_type: TokensType) -> None:
    source = build_template(name, query_type).source
    assert "{{>" not in source
    stripped = re.sub(r"\{\{#filter\.size\}\}" + CONTROLLED, "", source)
    stripped = re.sub(r"\{\{[#^/][a-zA-Z_.]+\}\}", "", stripped)
    values = re.findall(r"\{\{(\w+)\}\}", stripped)
    quoted = re.findall(r"\{\{(\w+)\}\}", "".join(re.findall(r'"(?:tokens\.)?\{\{\w+\}\}\w*"', stripped)))
    assert values == quoted
    assert "{{{" not in source
    assert "{{&" not in source


@pytest.mark.parametrize(("name", "query_type"), ALL)
def test_templates_differ_only_in_their_clause(name: str, query_type: TokensType) -> None:
    template = build_template(name, query_type)
    assert template.body == {"script": {"lang": "mustache", "source": template.source}}
    assert ("rank_feature" in template.source) == (name != "match" and query_type == "rank_features")
    assert ("sparse_vector" in template.source) == (name != "match" and query_type == "sparse_vector")
    assert template == replace(build_template(name, query_type, prefix="acme-"), id=f"stair-es-{name}")


@pytest.mark.parametrize("prefix", ["a b", "a/", "../", "a?", 'a"', "a*"])
def test_prefixes_that_can_t_be_in_an_address_are_rejected(prefix: str) -> None:
    with expect_error("invalid-template-prefix", UsageError):
        build_template("tokens", "rank_features", prefix=prefix)


def test_unknown_names_and_forms_are_rejected() -> None:
    with expect_error("unknown-template", UsageError) as caught:
        build_template("nope", "rank_features")
    assert "'nope'" in caught.value.message
    with expect_error("no-template-for-query-type", UsageError):
        build_template("tokens", "impacts")  # type: ignore[arg-type]


def test_show_needs_no_cluster() -> None:
    result = CliRunner().invoke(app, ["template", "show", "tokens", "--query-type", "sparse_vector"])
    assert (result.exit_code, result.stdout) == (0, build_template("tokens", "sparse_vector").source)
    assert CliRunner().invoke(app, ["template", "show", "nope"]).exit_code == 2


def test_an_unknown_name_is_wrong_usage() -> None:
    result = CliRunner().invoke(app, ["template", "delete", "nope", "--url", "http://127.0.0.1:9"])
    assert isinstance(result.exception, UsageError)
