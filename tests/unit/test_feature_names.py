"""Names of tokens in an index."""

import pytest
from hypothesis import given
from support.strategies import NAMES, TOKENS

from stair_es.feature_names import escape_feature, unescape_feature


def check_name(token: str) -> None:
    feature = escape_feature(token)
    assert unescape_feature(feature) == token
    assert feature
    assert "." not in feature


@pytest.mark.parametrize("token", [*NAMES, "naïve", "日本", "u.s.", "%%", "a\n"], ids=lambda token: ascii(token)[:20])
def test_strange_tokens_have_names_that_engines_accept(token: str) -> None:
    check_name(token)


@given(token=TOKENS)
def test_every_token_has_a_name_of_its_own_that_engines_accept(token: str) -> None:
    check_name(token)


@pytest.mark.parametrize("token", ["dog", "##ing", "'", "犬", "a b"])
def test_other_tokens_keep_their_name(token: str) -> None:
    assert escape_feature(token) == token
