"""Which kind opens which argument, and plugins that fail."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.errors import expect_error
from support.messages import forward_messages
from support.plugin_metadata import write_entry_points

from stair_es import plugins
from stair_es.errors import PluginError, UsageError
from stair_es.sources.base import SourceOptions
from stair_es.sources.registry import open_source

KINDS = [
    ("~/Pictures", "folder"),
    ("a/*.jpg", "folder"),
    ("file:///photos", "folder"),
    ("s3://bucket/prefix", "objects"),
    ("gs://bucket/*.jpg", "objects"),
    ("hf://datasets/user/name", "objects"),
    ("memory://x", "objects"),
    ("x/*.parquet", "parquet"),
    ("s3://bucket/x.parquet", "parquet"),
    ("x.CSV", "csv"),
    ("x.tsv.gz", "csv"),
    ("x.jsonl", "jsonl"),
    ("https://host/x.ndjson?token=1", "jsonl"),
    ("{000..002}.tar", "webdataset"),
    ("s3://bucket/x.tgz", "webdataset"),
    ("urls.txt", "urls"),
    ("https://host/x.jpg", "urls"),
    ("-", "stdin"),
    ("hf-dataset://user/name", "huggingface"),
]


@pytest.mark.parametrize(("argument", "expected"), KINDS)
def test_each_argument_is_claimed_by_one_kind(argument: str, expected: str) -> None:
    kinds = {
        plugin.name: plugin.load()
        for plugin in plugins.list_plugins("sources")
        if plugin.distribution == plugins.BUILTIN_DISTRIBUTION
    }
    assert [name for name, kind in kinds.items() if kind.can_open(argument)] == [expected]


def test_an_unknown_kind_lists_the_known_ones() -> None:
    with expect_error("unknown-source-kind", UsageError) as caught:
        open_source("x", SourceOptions(format="zip"))
    assert "zip" in caught.value.message
    assert "folder" in caught.value.remedy


@pytest.fixture
def plugin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages."""
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins.list_plugins.cache_clear()
    yield tmp_path
    plugins.list_plugins.cache_clear()
    for name in [name for name in sys.modules if name.startswith("example_")]:
        del sys.modules[name]


def install_plugin(folder: Path, name: str, code: str, entry: str) -> None:
    (folder / f"{name}.py").write_text(code)
    write_entry_points(folder, name, f"{entry} = {name}:KIND", group="sources", version="1.0")
    importlib.invalidate_caches()
    plugins.list_plugins.cache_clear()


def test_plugins_come_first_and_may_be_broken(plugin_folder: Path) -> None:
    install_plugin(plugin_folder, "example_broken", "import no_such_module_at_all\n", "aaa-broken")
    raising = "class K:\n    def can_open(self, argument):\n        raise RuntimeError('oops')\nKIND = K()\n"
    install_plugin(plugin_folder, "example_raising", raising, "bbb-raising")
    works = "class K:\n    def can_open(self, argument):\n        return argument.endswith('.jpg')\n"
    works += "    def open(self, argument, options):\n        return 'opened'\nKIND = K()\n"
    install_plugin(plugin_folder, "example_works", works, "ccc-works")
    messages = list[str]()
    with forward_messages(messages.append):
        assert open_source("x.jpg") == "opened"  # type: ignore[comparison-overlap]
    assert [("no_such_module_at_all" in line, "oops" in line) for line in messages] == [(True, False), (False, True)]
    assert open_source(str(plugin_folder)).uri == plugin_folder.as_uri()
    with expect_error("plugin-not-loaded", PluginError) as caught:
        open_source("x.jpg", SourceOptions(format="aaa-broken"))
    assert "no_such_module_at_all" in caught.value.message
