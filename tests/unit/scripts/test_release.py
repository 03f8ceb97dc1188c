"""Releases: versions that agree, notices for all data, valid workflows."""

from __future__ import annotations

import ast
import configparser
import datetime
import fnmatch
import re
import runpy
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import cut_release
import dist_files
import dist_installs
import dist_sbom
import pytest
import yaml  # type: ignore[import-untyped]
from packaging.licenses import canonicalize_license_expression
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from stair_es.doctor.machine import DEVELOPMENT_EXTRAS

ROOT = Path(__file__).parents[3]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SOURCE = {
    *(".cfg", ".css", ".html", ".ini", ".ipynb", ".java", ".js", ".json", ".jsonl", ".md", ".mjs", ".mustache", ".painless"),
    *(".py", ".sh", ".toml", ".ts", ".typed", ".yaml", ".yml", ".in"),
}
"""Endings of what is written by hand; all else has come from somewhere."""
BY_HAND = {".ci/run", ".dockerignore", ".gitignore", ".npmrc", "LICENSE", "Makefile", "NOTICE", "deploy/image/text-network.txt"}
CHANGELOG = "# Changelog\n\nText.\n\n## Unreleased\n\n### Added\n\n- One.\n"


def read_config() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def read_notice() -> dict[str, str]:
    """Glob -> what NOTICE says of it."""
    lines = [line.split(maxsplit=1) for line in (ROOT / "NOTICE").read_text().splitlines() if line.startswith("    ")]
    return dict(lines)


def test_all_versions_agree() -> None:
    assert cut_release.find_problems((ROOT / "CHANGELOG.md").read_text()) == []
    tagged = [path for path in cut_release.list_release_files() if re.search(r"(stair-es:|newTag: )\d", path.read_text())]
    assert {path.name for path in tagged} >= {"docker-compose.yml", "Dockerfile", "kustomization.yaml"}


def test_release_notes_round_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "CHANGELOG.md": CHANGELOG,
        "stair_es/_version.py": '__version__ = "0.1.0"\n',
        "README.md": "From a clone:\n".join(cut_release.UNTIL_RELEASE) + "\n    $ pip install '.[node]'  # or pip install .\n",
        "docs/plugins.md": "pip install ./examples/plugin, pip install -e ., `pip install '.[s3]'`\n",
        "setup.cfg": "[metadata]\nname = stair-es\nlicense_expression = Apache-2.0\n",
        "CITATION.cff": "title: stair-es\n",
        "docker-compose.yml": "image: stair-es:0.1.0-ray\nother: opensearch:3.8.0\n",
        "deploy/kustomization.yaml": "newTag: 0.1.0-cuda\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(cut_release, "ROOT", tmp_path)
    assert cut_release.find_problems(CHANGELOG) == []
    day, repository = datetime.date(2027, 1, 2), "https://github.com/some/stair-es"
    for unknown in ("", "some/stair-es", f"{repository}/"):
        with pytest.raises(ValueError, match="--repository"):
            cut_release.cut_release("0.2.0", day, unknown)
    assert {path.name for path in cut_release.cut_release("0.2.0", day, repository)} == {
        "CHANGELOG.md",
        "CITATION.cff",
        "README.md",
        "setup.cfg",
        "_version.py",
        "plugins.md",
        "docker-compose.yml",
        "kustomization.yaml",
    }
    for name in ("docker-compose.yml", "deploy/kustomization.yaml"):
        assert (tmp_path / name).read_text() == files[name].replace("0.1.0", "0.2.0")
    assert (tmp_path / "docs/plugins.md").read_text() == files["docs/plugins.md"].replace(".[s3]", "stair-es[s3]")
    [installed] = (tmp_path / "README.md").read_text().splitlines()
    assert re.findall(r"pip install (\S+)", installed) == ["'stair-es[node]'", "stair-es"]
    changelog = (tmp_path / "CHANGELOG.md").read_text()
    assert re.findall("^## (.+)$", changelog, re.MULTILINE) == ["Unreleased", "0.2.0 - 2027-01-02"]
    assert cut_release.extract_notes(changelog, "0.2.0").split("\n\n") == ["### Added", "- One.\n"]
    assert cut_release.find_problems(changelog, "v0.2.0") == []
    assert "v0.3.0" in cut_release.find_problems(changelog, "v0.3.0")[0]
    with pytest.raises(ValueError, match=r"CHANGELOG\.md"):
        cut_release.cut_release("0.3.0", day)
    (tmp_path / "docker-compose.yml").write_text("image: stair-es:0.1.9\n")
    (tmp_path / "README.md").write_text("pip install '.[node]'\n")
    readme, compose = cut_release.find_problems(changelog)
    assert readme.startswith("README.md: ")
    assert re.findall(r"[\w-]+\.yml|\d\.\d\.\d", compose) == ["docker-compose.yml", "0.1.9", "0.2.0"]


def test_the_readme_on_an_index_links_to_the_repository() -> None:
    setup = runpy.run_path(str(ROOT / "setup.py"))
    text = (ROOT / "README.md").read_text()
    assert setup["read_description"]().partition("\n")[0] == text.partition("\n")[0]
    assert setup["link_to_source"](text, "", "v0.2.0") == text  # the repository is known from the first release on
    linked = setup["link_to_source"](text, "https://github.com/some/stair-es", "v0.2.0")
    paths = re.findall(r"\]\(https://github\.com/some/stair-es/(?:blob|raw)/v0\.2\.0/([^)#]+)", linked)
    assert len(paths) == len(re.findall(r"\]\((?!https:)", text)) > 40
    assert all((ROOT / path).exists() for path in paths)
    assert re.findall(r"!\[[^]]*\]\((\S+?)/v0", linked) == ["https://github.com/some/stair-es/raw"]


@pytest.mark.parametrize("wrong", ["0.0.9", "1.0", "v0.2.0", "0.2.0rc1"])
def test_a_version_that_cannot_follow_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=re.escape(wrong)):
        cut_release.cut_release(wrong, datetime.date(2027, 1, 2))


def test_a_version_is_never_released_twice() -> None:
    once = cut_release.move_unreleased(CHANGELOG, "0.1.0", datetime.date(2027, 1, 2))
    again = once.replace("## Unreleased\n", "## Unreleased\n\n- Two.\n")
    with pytest.raises(ValueError, match="already"):
        cut_release.move_unreleased(again, "0.1.0", datetime.date(2027, 1, 3))


def test_data_of_others_has_an_entry_in_the_notice() -> None:
    notice = read_notice()
    for name in sorted(dist_files.list_tracked_files()):
        is_own = Path(name).suffix in SOURCE or name in BY_HAND or Path(name).name.startswith(("Dockerfile", "MANIFEST"))
        if is_own and not name.startswith("stair_es/model/data/"):
            continue
        assert any(fnmatch.fnmatch(name, glob) for glob in notice), f"{name}: add a line to NOTICE that says where it comes from"
    for glob, origin in notice.items():
        assert list(ROOT.glob(glob)), f"NOTICE names {glob}, and there is nothing"
        for document in re.findall(r"\S+\.md", origin):
            assert (ROOT / document).is_file(), document


def test_the_notices_beside_the_data_name_every_file() -> None:
    credits = (ROOT / "examples/photos/CREDITS.md").read_text()
    assert all(f"({photo.name})" in credits for photo in (ROOT / "examples/photos").glob("*.jpg"))
    data_notice = (ROOT / "stair_es/model/data/NOTICE.md").read_text()
    data = [path for path in (ROOT / "stair_es/model/data").iterdir() if path.name != "NOTICE.md"]
    assert len(data) >= 4
    assert all(f"`{path.name}`" in data_notice or f"`{path.name}/`" in data_notice for path in data)


def test_the_license_is_an_expression_and_its_texts_travel() -> None:
    metadata = read_config()["metadata"]
    expression = metadata["license_expression"]
    assert canonicalize_license_expression(expression) == expression
    assert metadata["license_files"].split() == list(dist_files.NOTICES)
    notices = (ROOT / "stair_es/model/data/NOTICE.md").read_text()
    assert [text for text in ("Copyright (c) 2021 Vladimir Mandic", "UNICODE LICENSE V3") if text not in notices] == []
    assert (ROOT / "LICENSE").read_text().lstrip().startswith("Apache License")


def test_lower_bounds_are_named_for_every_dependency() -> None:
    config = read_config()
    wanted = config["options"]["install_requires"].splitlines()
    for extra, lines in config["options.extras_require"].items():
        wanted += [] if extra == "dev" else lines.splitlines()
    for requirement in (Requirement(line) for line in wanted if line):
        bounded = any(each.operator in (">=", "==") for each in requirement.specifier)
        assert bounded or requirement.name == "stair-es", f"{requirement}: a promise without a lowest version can't be tried"


def test_imports_of_scripts_and_support_are_declared() -> None:
    options = read_config()["options"], read_config()["options.extras_require"]
    lines = "\n".join([options[0]["install_requires"], *options[1].values()]).split("\n")
    declared = {canonicalize_name(Requirement(line).name) for line in lines if line}
    installed_with_others = {"docutils"}  # by sphinx, which is nothing without it
    distributions = packages_distributions()
    files = [path for folder in ("docs/_ext", "scripts", "tests/support") for path in (ROOT / folder).rglob("*.py")]
    for file in sorted(files):
        for module in list_imported_names(file) & set(distributions):
            names = {canonicalize_name(name) for name in distributions[module]}
            assert names & (declared | installed_with_others), f"{file.name} imports {module}, which setup.cfg doesn't name"


def list_imported_names(file: Path) -> set[str]:
    """Top-level names of all modules that a file imports."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {name.partition(".")[0] for name in names}


def test_extras_of_development_are_no_business_of_the_doctor() -> None:
    assert set(read_config()["options.extras_require"]) >= DEVELOPMENT_EXTRAS


def test_tree_and_archive_differences_are_reported(tmp_path: Path) -> None:
    wheel, sdist = tmp_path / "stair_es-0.1.0-py3-none-any.whl", tmp_path / "stair_es-0.1.0.tar.gz"
    names = {"stair_es/a.py", "cli/b.py", "mappings/c.json", "docs/d.md", ".github/e.yml"}
    info = "stair_es-0.1.0.dist-info"
    generated = [f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt")]
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in (
            *generated,
            *(f"{info}/licenses/{name}" for name in dist_files.NOTICES),
            "stair_es/a.py",
            "stair_es/cli/b.py",
            "stair_es/x.pem",
        ):
            archive.writestr(name, "")
    [missing, stray] = dist_files.compare_wheel(wheel, names)
    assert "stair_es/mappings/c.json" in missing
    assert "stair_es/x.pem" in stray
    with tarfile.open(sdist, "w:gz") as tar:
        for name in ("PKG-INFO", "stair_es.egg-info/SOURCES.txt", "stair_es/a.py", "cli/b.py", "mappings/c.json"):
            tar.addfile(tarfile.TarInfo(f"stair_es-0.1.0/{name}"))
    [missing] = dist_files.compare_sdist(sdist, names)
    assert missing.startswith(f"{sdist.name}: docs/d.md ")


@pytest.mark.parametrize(
    ("extras", "expected"),
    [
        ((), ["numpy>=1.26", 'tomli>=2; python_version < "3.11"']),
        (("train",), ["numpy>=1.26", 'tomli>=2; python_version < "3.11"', 'old>=1 ; python_version < "3.11"', "torch>=2.3"]),
    ],
)
def test_extra_requirements_are_parsed(extras: tuple[str, ...], expected: list[str]) -> None:
    metadata = Message()
    metadata["Name"] = "stair-es"
    for line in (
        "numpy>=1.26",
        'tomli>=2; python_version < "3.11"',
        'torch>=2.3; extra == "torch"',
        'eval-only>=1; extra == "eval"',
        'old>=1; python_version < "3.11" and extra == "train"',
        'stair-es[torch]; extra == "train"',
    ):
        metadata["Requires-Dist"] = line
    assert {*dist_installs.list_direct_requirements(metadata, extras)} == {*expected}


@pytest.mark.parametrize(
    ("name", "stated", "expected"),
    [
        ("certifi", [{"license": {"id": "MPL-2.0"}}, {"license": {"name": "Mozilla Public License"}}], ["MPL-2.0"]),
        ("numpy", [{"expression": "BSD-3-Clause AND 0BSD"}], ["BSD-3-Clause AND 0BSD"]),
        ("protobuf", [{"expression": "MIT"}], ["MIT"]),  # a later version that states it
        ("Events", [{"license": {"name": "License :: OSI Approved :: BSD License"}}], ["BSD-3-Clause"]),
        ("protobuf", None, ["BSD-3-Clause"]),
        ("unheard-of", [{"license": {"name": "License :: OSI Approved :: BSD License"}}], None),
        ("unheard-of", None, None),
    ],
)
def test_bill_of_materials_has_an_spdx_license_for_each_package(
    name: str, stated: list[Any] | None, expected: list[str] | None
) -> None:
    component: dict[str, Any] = {"name": name} if stated is None else {"name": name, "licenses": stated}
    assert dist_sbom.complete_licenses({"components": [component]}) == ([] if expected else [name])
    if expected:
        assert [each.get("expression") or each["license"]["id"] for each in component["licenses"]] == expected
    for license in dist_sbom.LICENSES.values():
        assert canonicalize_license_expression(license) == license


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_have_least_rights_and_valid_commands(workflow: Path) -> None:
    content: dict[str, Any] = yaml.safe_load(workflow.read_text())
    assert content["permissions"] == {"contents": "read"}
    assert content["concurrency"]["group"]
    for name, job in content["jobs"].items():
        if "uses" in job:
            triggers = yaml.safe_load((ROOT / job["uses"]).read_text())[True]  # as YAML reads the key "on"
            assert "workflow_call" in triggers
            assert "permissions" not in job
            continue
        assert job["timeout-minutes"] <= 60, name
        for step in job["steps"]:
            assert "uses" not in step or re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step["uses"]), "pin it by its hash"
            for targets in re.findall(r"^(?:sudo )?make (.+)$", step.get("run", ""), re.MULTILINE):
                done = subprocess.run(["bash", "-c", f"make -n {targets}"], cwd=ROOT, capture_output=True, text=True, check=False)
                assert done.returncode == 0, done.stderr


def test_only_tried_packages_and_images_are_published() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]

    def list_needed(name: str) -> set[str]:
        needs = jobs[name].get("needs", [])
        direct = {needs} if isinstance(needs, str) else set(needs)
        return direct | {each for one in direct for each in list_needed(one)}

    publishing = {name for name, job in jobs.items() if "write" in job.get("permissions", {}).values()}
    assert publishing == {"pypi", "github", "push-images"}
    for name in publishing:
        assert list_needed(name) >= {"build", "try-images"}, name
    try_jobs = yaml.safe_load((ROOT / jobs["try-images"]["uses"]).read_text())["jobs"]
    assert {each["target"] for each in try_jobs["image"]["strategy"]["matrix"]["include"]} == {
        each["target"] for each in jobs["push-images"]["strategy"]["matrix"]["include"]
    }


def test_workflows_and_compose_files_follow_the_schemas() -> None:
    github = ROOT / ".github"
    for schema, files in (
        ("github-workflows", WORKFLOWS),
        ("github-issue-config", [github / "ISSUE_TEMPLATE" / "config.yml"]),
        ("dependabot", [github / "dependabot.yml"]),
        ("compose-spec", [ROOT / "docker-compose.yml", ROOT / "deploy" / "compose.cluster.yml"]),
    ):
        assert files
        command = (sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, files))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_the_matrix_has_every_python_that_is_promised() -> None:
    tests = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    matrix = set(tests["jobs"]["wheel"]["strategy"]["matrix"]["python"])
    promised = re.findall(r"Python :: (3\.\d+)", read_config()["metadata"]["classifiers"])
    lowest = read_config()["options"]["python_requires"].removeprefix(">=")
    assert set(promised) <= matrix
    assert lowest == min(promised, key=lambda version: int(version.partition(".")[2]))
