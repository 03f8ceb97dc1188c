"""The example plugin: installed with pip, driven by the installed command, into files and into a real node, here and on Ray."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from opensearchpy import OpenSearch
from support.plugin_metadata import write_entry_points

from stair_es.system.ray_session import START_TIMEOUTS

ROOT = Path(__file__).parents[2]
PHOTOS = sorted((ROOT / "examples" / "photos").glob("*.jpg"))[:8]
RUNNERS = ["local", pytest.param("ray", marks=pytest.mark.nightly("plugins in workers of Ray"))]

Run: TypeAlias = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def plugin_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of Python packages with the example plugin, installed from a copy of its sources."""
    source, target = tmp_path_factory.mktemp("source") / "plugin", tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "examples" / "plugin", source, ignore=shutil.ignore_patterns("__pycache__", ".*cache", "*.egg-info"))
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    result = subprocess.run([*pip, "--target", target, source], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return target


@pytest.fixture(scope="module")
def ray_cluster(plugin_site: Path) -> Iterator[dict[str, str]]:
    """A running Ray cluster of two nodes, as the environment of a driver that joins it. Its GPUs are only resource counts."""
    code = (
        "import sys; from ray.cluster_utils import Cluster\n"
        "cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 1, 'num_gpus': 1, 'include_dashboard': False})\n"
        "cluster.add_node(num_cpus=1, num_gpus=1)\n"
        "print('address', cluster.address, flush=True); sys.stdin.read(); cluster.shutdown()\n"
    )
    login = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **START_TIMEOUTS, **login, "PYTHONPATH": str(plugin_site)},
    ) as cluster:
        assert cluster.stdout is not None
        address = next(line.split()[1] for line in iter(cluster.stdout.readline, "") if line.startswith("address"))
        try:
            yield {**login, "RAY_ADDRESS": address}
        finally:
            cluster.communicate("")


@pytest.fixture
def stair_es(plugin_site: Path, tmp_path: Path, warm_script: Path) -> Run:
    """Run a command with the plugin on the Python path."""
    environment = {**os.environ, "PYTHONPATH": str(plugin_site), "STAIR_ES_HOME": str(tmp_path / "home"), "COLUMNS": "200"}
    environment.pop("STAIR_ES_URL", None)

    def run_command(*arguments: str | Path, more_packages: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        path = f"{more_packages}{os.pathsep}{plugin_site}" if more_packages else str(plugin_site)
        return subprocess.run(
            [warm_script, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env={**environment, "PYTHONPATH": path, **more},
        )

    return run_command


@pytest.fixture
def image_archive(tmp_path: Path) -> Path:
    """Photos in a .zip, with one broken image and a file of another type."""
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as file:
        for photo in PHOTOS:
            file.write(photo, f"in/{photo.name}")
        file.writestr("in/broken.jpg", b"no image")
        file.writestr("notes.txt", b"not for us")
    return path


def _parse_json(result: subprocess.CompletedProcess[str], code: int = 0) -> Any:  # noqa: ANN401
    assert result.returncode == code, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def _read_bulk_bodies(folder: Path) -> dict[str, dict[str, Any]]:
    """The documents that a cluster would have after all bulk files."""
    documents: dict[str, dict[str, Any]] = {}
    for part in sorted(folder.glob("*/*.ndjson")):
        lines = [json.loads(line) for line in part.read_bytes().splitlines()]
        while lines:
            [(action, about)] = lines.pop(0).items()
            if action == "delete":
                del documents[about["_id"]]
            else:
                documents[about["_id"]] = lines.pop(0)
    return documents


def _install_stranger(plugin_site: Path, group: str, name: str, source: str) -> None:
    (plugin_site / f"stranger_{name}.py").write_text(source)
    write_entry_points(plugin_site, f"stranger-{name}", f"{name} = stranger_{name}:KIND", group=group, version="0.3")


def test_all_four_are_listed(stair_es: Run) -> None:
    listed = _parse_json(stair_es("plugins", "--json"))["plugins"]
    example_plugins = [plugin for plugin in listed if plugin["package"] == "stair-es-example-plugin"]
    names = {(plugin["group"], plugin["name"], plugin["version"], plugin["problem"]) for plugin in example_plugins}
    assert names == {
        ("sources", "zip", "1.0.0", None),
        ("encoders", "colors", "1.0.0", None),
        ("enrichers", "pixelate", "1.0.0", None),
        ("sinks", "ndjson", "1.0.0", None),
    }
    assert all(plugin["description"] for plugin in example_plugins)
    assert "stair-es-example-plugin 1.0.0" in stair_es("plugins").stdout


@pytest.mark.parametrize("runner", RUNNERS)
def test_from_an_archive_into_files_and_again(
    stair_es: Run, image_archive: Path, tmp_path: Path, runner: str, request: pytest.FixtureRequest
) -> None:
    ray = request.getfixturevalue("ray_cluster") if runner == "ray" else {}
    command = ["ingest", image_archive, "--model", "colors", "--enrich", "pixelate:blocks=4", "--index", "shop", "--json"]
    sink = ["--sink", f"ndjson:folder={tmp_path / 'out'}", "--runner"]
    report = _parse_json(stair_es(*command, *sink, runner, **ray), code=3)
    assert (report["seen"], report["written"], report["failed"], report["runner"]) == (len(PHOTOS) + 1, len(PHOTOS), 1, runner)
    assert report["model"] == "colors-1"
    documents = _read_bulk_bodies(tmp_path / "out")
    assert {document["uri"] for document in documents.values()} == {
        f"{image_archive.as_uri()}!/in/{photo.name}" for photo in PHOTOS
    }
    for document in documents.values():
        assert 0 < document["brightness"] < 1
        assert document["thumbnail"].startswith("data:image/webp;base64,")
        assert set(document["tokens"]) >= set(document["top_tokens"])
    assert len({document["thumbnail"] for document in documents.values()}) == len(PHOTOS)

    second = _parse_json(stair_es(*command, *sink, "local"), code=3)  # the state is the same for every runner
    assert (second["written"], second["unchanged"], second["failed"]) == (0, len(PHOTOS), 1)
    assert _read_bulk_bodies(tmp_path / "out") == documents


def test_another_option_of_an_enricher_rewrites_the_documents(stair_es: Run, image_archive: Path, tmp_path: Path) -> None:
    sink = f"ndjson:folder={tmp_path / 'out'}"
    for blocks in ("4", "5"):
        enrich = f"pixelate:blocks={blocks}"
        report = _parse_json(
            stair_es("ingest", image_archive, "--model", "colors", "--enrich", enrich, "--sink", sink, "--json"), code=3
        )
        assert report["written"] == len(PHOTOS)


def test_removed_archive_members_are_removed(stair_es: Run, image_archive: Path, tmp_path: Path) -> None:
    command = ["ingest", image_archive, "--model", "colors", "--sink", f"ndjson:folder={tmp_path / 'out'}", "--json"]
    assert _parse_json(stair_es(*command), code=3)["written"] == len(PHOTOS)
    with zipfile.ZipFile(image_archive, "w") as file:
        for photo in PHOTOS[1:]:
            file.write(photo, f"in/{photo.name}")
    dry_run = _parse_json(stair_es(*command, "--resync", "--dry-run"))
    assert (dry_run["unchanged"], dry_run["stale"]) == (len(PHOTOS) - 1, 1)
    report = _parse_json(stair_es(*command, "--resync"))
    assert (report["unchanged"], report["removed"]) == (len(PHOTOS) - 1, 1)
    assert len(_read_bulk_bodies(tmp_path / "out")) == len(PHOTOS) - 1


@pytest.mark.parametrize("runner", RUNNERS)
def test_from_an_archive_into_the_cluster_and_found_by_color(
    stair_es: Run,
    image_archive: Path,
    node_url: str,
    index_name: str,
    client: OpenSearch,
    runner: str,
    request: pytest.FixtureRequest,
) -> None:
    options = ["--url", node_url, "--index", index_name, "--model", "colors", "--json"]
    ray = request.getfixturevalue("ray_cluster") if runner == "ray" else {}
    command = ["ingest", image_archive, *options, "--enrich", "pixelate", "--gpus-per-encoder", "0.5", "--batch-size", "2"]
    report = _parse_json(stair_es(*command, **ray), code=3)
    assert (report["written"], report["failed"], report["runner"]) == (len(PHOTOS), 1, runner)
    hits = client.search(index=index_name, body={"query": {"range": {"brightness": {"gt": 0}}}})["hits"]["hits"]
    assert len(hits) == len(PHOTOS)

    found = _parse_json(stair_es("search", "something green", *options))["hits"]
    by_green = sorted((hit for hit in hits if "green" in hit["_source"]["tokens"]), key=lambda hit: -_get_green_weight(hit))
    assert by_green
    assert [hit["uri"] for hit in found] == [hit["_source"]["uri"] for hit in by_green]
    for hit, expected in zip(found, by_green, strict=True):
        assert hit["score"] == pytest.approx(_get_green_weight(expected), rel=0.004)


def _get_green_weight(hit: dict[str, Any]) -> float:
    return float(hit["_source"]["tokens"]["green"])


def test_incompatible_plugins_do_not_affect_others(stair_es: Run, image_archive: Path, tmp_path: Path) -> None:
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    _install_stranger(
        strangers, "enrichers", "future", "class KIND:\n    api_version = 99\n    name = 'future'\n    description = ''\n"
    )
    _install_stranger(strangers, "sources", "broken", "import a_library_that_is_not_there\n")
    _install_stranger(strangers, "sinks", "empty", "")

    def run_command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return stair_es(*arguments, more_packages=strangers)

    listed = _parse_json(run_command("plugins", "--json"))["plugins"]
    problems = {plugin["name"]: plugin["problem"] for plugin in listed if plugin["package"].startswith("stranger")}
    assert set(problems) == {"future", "broken", "empty"}
    assert "stranger-future 0.3" in problems["future"]
    assert "API version 99" in problems["future"]
    assert "a_library_that_is_not_there" in problems["broken"]
    assert "KIND" in problems["empty"]
    assert "API version 99" in run_command("plugins").stdout

    sink = f"ndjson:folder={tmp_path / 'out'}"
    result = run_command("ingest", image_archive, "--model", "colors", "--sink", sink, "--json")
    assert _parse_json(result, code=3)["written"] == len(PHOTOS)
    assert "'broken' of stranger-broken" in result.stderr
    refused = run_command("ingest", image_archive, "--model", "colors", "--enrich", "future", "--sink", sink)
    assert refused.returncode == 1
    assert "API version 99" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sink", "ndjson"], "requires the option folder"),
        (["--sink", "nowhere"], "unknown sink 'nowhere'"),
        (["--sink", "ndjson:folder=out", "--enrich", "pixelate:blocks=none"], "blocks=N"),
        (["--sink", "ndjson:folder=out", "--enrich", "nobody"], "unknown enricher 'nobody'"),
    ],
)
def test_wrong_options_of_plugins_are_wrong_usage(stair_es: Run, image_archive: Path, arguments: list[str], message: str) -> None:
    result = stair_es("ingest", image_archive, "--model", "colors", *arguments)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
