"""Ids of tokens, for clients that take numbers."""

import pytest

from stair_es.token_policy import TokenPolicy
from stair_es.web.encoding.service import number_tokens

TOKENS = ("cat", "kitten", "a.b", "dog")
IDS = {"cat": 0, "kitten": 1, "a.b": 2, "dog": 3}


@pytest.mark.parametrize(
    ("policy", "added"),
    [
        (None, {}),
        (TokenPolicy(rename={"dog": "cat"}), {}),
        (TokenPolicy(merge={"pet": ("kitten", "a.b"), "ghost": ("unknown",)}, mute=("fish",)), {"pet": 1}),
        (TokenPolicy(merge={"x": ("cat", "dog"), "y": ("kitten",), "z": ("a.b",)}), {"x": 0, "y": 1, "z": 2}),
    ],
)
def test_a_new_name_has_the_lowest_id_of_its_tokens(policy: TokenPolicy | None, added: dict[str, int]) -> None:
    assert number_tokens(TOKENS, policy) == {**IDS, **added}
