import pickle
import re

import pytest

from stair_es import errors
from stair_es.errors import MissingExtra, RetryLater, StairError
from stair_es.optional import format_install_command, import_optional


def _tree(root: type[StairError]) -> list[type[StairError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _tree(child))]


@pytest.mark.parametrize("kind", _tree(StairError), ids=lambda kind: kind.__name__)
def test_every_error_survives_pickling(kind: type[StairError]) -> None:
    back = pickle.loads(pickle.dumps(kind("what", "do this")))
    assert type(back) is kind
    assert (back.message, back.remedy, str(back)) == ("what", "do this", "what\ndo this")


def test_host_delays_survive_pickling() -> None:
    back = pickle.loads(pickle.dumps(RetryLater("what", "do this", "images.test", 40.0)))
    assert (back.message, back.host, back.wait_s) == ("what", "images.test", 40.0)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    for kind in _tree(StairError):
        assert kind.__name__ in errors.__doc__


def test_a_missing_extra_is_named() -> None:
    with pytest.raises(MissingExtra, match=re.escape(format_install_command("node"))):
        import_optional("no_such_package_at_all", "node")
