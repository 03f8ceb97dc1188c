"""`stair-es teach`: several values after one option."""

from __future__ import annotations

import pytest

from stair_es.cli.commands.policy.teach import repeat_option_names


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("windmill --yes a b c --no d", "windmill --yes a --yes b --yes c --no d"),
        ("--yes a b --index photos -k 3", "--yes a --yes b --index photos -k 3"),
        ("windmill --yes a --apply", "windmill --yes a --apply"),
        ("windmill --yes=a b", "windmill --yes=a b"),
        ("windmill --yes --no a b", "windmill --yes --no a --no b"),
        ("--export words.json windmill", "--export words.json windmill"),
    ],
)
def test_option_names_are_repeated(line: str, expected: str) -> None:
    assert repeat_option_names(line.split()) == expected.split()
