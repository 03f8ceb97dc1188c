import pickle
import re
from pathlib import Path

import pytest
from error_reference import CLASSES, list_faults

from stair_es import errors
from stair_es.errors import MissingExtra, RetryLater, StairError
from stair_es.optional import format_install_command, import_optional

ROOT = Path(__file__).parents[2]
BROAD = {errors.AuthenticationFailed, errors.IndexMismatch, errors.IngestError, errors.NodeError, errors.QueryError}
"""Classes without subclasses that stand for several faults each."""


def list_classes(root: type[StairError]) -> list[type[StairError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in list_classes(child))]


@pytest.mark.parametrize("kind", list_classes(StairError), ids=lambda kind: kind.__name__)
def test_every_error_survives_pickling(kind: type[StairError]) -> None:
    back = pickle.loads(pickle.dumps(kind("what", "do this", "which")))
    assert type(back) is kind
    assert (back.message, back.remedy, back.code, str(back)) == ("what", "do this", "which", "what\ndo this")


def test_host_delays_survive_pickling() -> None:
    back = pickle.loads(pickle.dumps(RetryLater("what", "do this", "which", "images.test", 40.0)))
    assert (back.code, back.host, back.wait_s) == ("which", "images.test", 40.0)


def test_the_code_is_by_default_the_name_of_the_class() -> None:
    assert errors.IndexNotFound("what").code == "index-not-found"
    assert errors.NotASearchCluster("what").code == "not-a-search-cluster"


def test_every_fault_of_a_broad_class_has_a_code_of_its_own() -> None:
    broad = {kind for kind in list_classes(StairError) if kind.__subclasses__()} | BROAD
    faults = list_faults(ROOT / "stair_es", ROOT / "cli")
    assert len(faults) > 600
    assert [fault.place for fault in faults if CLASSES.get(fault.kind) in broad and not fault.has_own_code] == []


def test_codes_are_words_with_hyphens() -> None:
    codes = {fault.code for fault in list_faults(ROOT / "stair_es", ROOT / "cli")} - {""}
    assert [code for code in sorted(codes) if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", code)] == []


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    for kind in list_classes(StairError):
        assert kind.__name__ in errors.__doc__


def test_a_missing_extra_is_named() -> None:
    with pytest.raises(MissingExtra, match=re.escape(format_install_command("node"))):
        import_optional("no_such_package_at_all", "node")
