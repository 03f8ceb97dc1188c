"""The Dockerfile, as far as it can be checked without docker: hadolint, what it copies, and that it agrees with the rest."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

from deploy_files import DOCKERFILE, KUBERNETES, ROOT, everything

from stair_es._version import __version__
from stair_es.model.minilm_files import PACKAGE, VERSION, WHEEL_SHA256

TEXT = DOCKERFILE.read_text()
HADOLINT = Path(sys.executable).with_name("hadolint")


def _stages() -> dict[str, str]:
    """Stage -> what follows its FROM."""
    return {part.split()[2]: part for part in re.split(r"^FROM ", TEXT, flags=re.MULTILINE)[1:]}


def test_hadolint_finds_nothing(tmp_path: Path) -> None:
    done = subprocess.run([HADOLINT, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    (tmp_path / "Dockerfile").write_text(
        TEXT.replace("ARG PYTHON=python:3.11.14-slim-bookworm", "ARG PYTHON=python") + "USER root\n"
    )
    assert subprocess.run([HADOLINT, tmp_path / "Dockerfile"], capture_output=True, check=False).returncode == 1


def test_an_image_is_the_bare_base_with_a_finished_environment_and_a_user() -> None:
    stages = _stages()
    for name in ("cpu", "ray", "cuda"):
        assert stages[name].startswith(f"runtime AS {name}\n")
        assert [line for line in stages[name].splitlines() if line.startswith(("COPY", "RUN", "USER"))] == [
            f"COPY --from={name}-venv /opt/stair-es /opt/stair-es"
        ]
    assert "USER 1000:1000" in stages["runtime"]
    assert "pip" not in stages["runtime"].replace("pip has no business", "")
    assert list(stages)[-1] == "cpu"  # what a build without --target makes


def test_extras_exist_and_versions_agree() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    [extras] = re.findall(r"^ARG EXTRAS=(\S+)$", TEXT, re.MULTILINE)
    assert set(extras.split(",")) <= set(setup["options.extras_require"])
    [ray] = re.findall(r"^ARG RAY=(\S+)$", TEXT, re.MULTILINE)
    job, cluster = everything()["RayJob", "stair-es-ingest"]["spec"], everything()["RayCluster", "stair-es"]["spec"]
    assert job["rayClusterSpec"]["rayVersion"] == cluster["rayVersion"] == ray
    pinned = re.search(r"^(\S+)==(\S+) --hash=sha256:(\S+)$", (ROOT / "deploy/image/text-network.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert pinned.groups() == (PACKAGE, VERSION, WHEEL_SHA256)


def test_images_are_called_by_this_version_everywhere() -> None:
    texts = [TEXT, (ROOT / "docker-compose.yml").read_text(), (ROOT / "deploy/compose.cluster.yml").read_text()]
    texts += [path.read_text() for path in KUBERNETES.rglob("kustomization.yaml")]
    found = {version for text in texts for version in re.findall(r"(?:stair-es:|newTag: )(\d[\d.]*\d)", text)}
    assert found == {__version__}


def test_what_is_copied_is_what_building_needs(tmp_path: Path) -> None:
    """The build context, as .dockerignore leaves it, gives a whole wheel."""
    ignored = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    allowed = [line[1:] for line in ignored if line.startswith("!")]
    assert [name for name in allowed if not (ROOT / name).exists()] == []
    assert "*" in ignored
    for name in allowed:
        at = ROOT / name
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(at, tmp_path / name) if at.is_dir() else shutil.copy(at, tmp_path / name)
    setup = ConfigParser()
    setup.read(tmp_path / "setup.cfg")
    places = dict(line.split(" = ") for line in setup["options"]["package_dir"].strip().splitlines())
    for package in setup["options"]["packages"].split():
        assert (tmp_path / places.get(package, package.replace(".", "/"))).is_dir(), package
    for line in re.findall(r"^COPY (?!--from)(\S+) ", TEXT, re.MULTILINE):
        assert (tmp_path / line).exists()
