"""The Dockerfile without docker: hadolint, copied files, agreement with the rest."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

from support.deploy_files import DOCKERFILE, KUBERNETES, ROOT, read_all_manifests

from stair_es._version import __version__
from stair_es.model.networks.minilm_download import MINILM_PACKAGE, MINILM_VERSION, MINILM_WHEEL_SHA256

TEXT = DOCKERFILE.read_text()
HADOLINT = Path(sys.executable).with_name("hadolint")


def read_stages() -> dict[str, str]:
    """Stage -> what follows its FROM."""
    return {part.split()[2]: part for part in re.split(r"^FROM ", TEXT, flags=re.MULTILINE)[1:]}


def test_hadolint_passes(tmp_path: Path) -> None:
    files = [DOCKERFILE, ROOT / "examples" / "space" / "Dockerfile"]
    done = subprocess.run([HADOLINT, "--no-color", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    (tmp_path / "Dockerfile").write_text(
        TEXT.replace("ARG PYTHON=python:3.11.14-slim-bookworm", "ARG PYTHON=python") + "USER root\n"
    )
    assert subprocess.run([HADOLINT, tmp_path / "Dockerfile"], capture_output=True, check=False).returncode == 1


def test_images_share_the_layers_of_packages() -> None:
    stages = read_stages()
    for name in ("cpu", "ray", "cuda"):
        assert stages[name].startswith(f"{name}-packages AS {name}\n")
        code, user = (line.split() for line in stages[name].splitlines() if line.startswith(("COPY", "RUN", "USER")))
        assert code == ["COPY", "--from=package", "/package", "/opt/stair-es"]  # the last layer
        assert user == ["USER", "1000:1000"]
    below = {name: stages[f"{name}-packages"].split()[0] for name in ("cpu", "ray", "cuda")}
    assert below == {"cpu": "base", "ray": "cpu-packages", "cuda": "ray-packages"}
    for name in ("base", "cpu-packages", "ray-packages", "cuda-packages"):
        copied = re.findall(r"^COPY (.+)$", stages[name], re.MULTILINE)
        assert all(re.search(r"(requirements/\w+|text-network)\.txt /opt/requirements/$", line) for line in copied)  # no code
    assert list(stages)[-1] == "cpu"  # what a build without --target makes


def test_image_disables_reporting_and_folders_suit_group_0() -> None:
    base = read_stages()["base"]
    for setting in ("ORT_DISABLE_TELEMETRY=1", "RAY_USAGE_STATS_ENABLED=0", "HF_HUB_DISABLE_TELEMETRY=1", "DO_NOT_TRACK=1"):
        assert f" {setting}" in base
    assert "--group=0 --mode=0775 /var/lib/stair-es" in base
    assert "HOME=/tmp" in base  # writable on a read-only root too


def test_environment_matches_the_wheel_and_has_no_pip(tmp_path: Path) -> None:
    metadata = (
        "Metadata-Version: 2.1\nName: Stair_ES\nRequires-Dist: numpy>=1\nRequires-Dist: tomli>=2; python_version < '3'\n"
        "Requires-Dist: pyarrow>=14; extra == 'tables'\nRequires-Dist: stair-es[tables]; extra == 'all'\n"
        "Requires-Dist: torch>=2; extra == 'torch'\n\nText\n"
    )
    wheel = tmp_path / "stair_es-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("stair_es-1.dist-info/METADATA", metadata)
    for extras, expected in (("all", ["numpy>=1", "pyarrow>=14"]), ("torch", ["numpy>=1", "torch>=2"])):
        command = [sys.executable, str(ROOT / "deploy" / "image" / "requirements.py"), str(wheel), extras]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == expected
    assert "venv --without-pip" in TEXT
    assert "SOURCE_DATE_EPOCH=" in read_stages()["wheel"]


def test_extras_exist_and_versions_agree() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    [extras] = re.findall(r"^ARG EXTRAS=(\S+)$", TEXT, re.MULTILINE)
    assert set(extras.split(",")) <= set(setup["options.extras_require"])
    [ray] = re.findall(r"^ARG RAY=(\S+)$", TEXT, re.MULTILINE)
    manifests = read_all_manifests()
    cluster_specs = (
        manifests["RayJob", "stair-es-ingest"]["spec"]["rayClusterSpec"],
        manifests["RayCluster", "stair-es"]["spec"],
    )
    assert [spec["rayVersion"] for spec in cluster_specs] == [ray, ray]
    pinned = re.search(r"^(\S+)==(\S+) --hash=sha256:(\S+)$", (ROOT / "deploy/image/text-network.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert pinned.groups() == (MINILM_PACKAGE, MINILM_VERSION, MINILM_WHEEL_SHA256)


def test_images_are_called_by_this_version_everywhere() -> None:
    texts = [TEXT, (ROOT / "docker-compose.yml").read_text(), (ROOT / "deploy/compose.cluster.yml").read_text()]
    texts += [path.read_text() for path in KUBERNETES.rglob("kustomization.yaml")]
    found = {version for text in texts for version in re.findall(r"(?:stair-es:|newTag: )(\d[\d.]*\d)", text)}
    assert found == {__version__}


def test_only_build_files_are_copied(tmp_path: Path) -> None:
    """The build context, as .dockerignore leaves it, gives a whole wheel."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = [line[1:] for line in ignored if line.startswith("!")]
    assert [name for name in allowed if not (ROOT / name).exists()] == []
    assert "*" in ignored
    for name in allowed:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, tmp_path / name)
    setup = ConfigParser()
    setup.read(tmp_path / "setup.cfg")
    folders = dict(line.split(" = ") for line in setup["options"]["package_dir"].strip().splitlines())
    for package in setup["options"]["packages"].split():
        assert (tmp_path / folders.get(package, package.replace(".", "/"))).is_dir(), package
    for line in re.findall(r"^COPY (?!--from)(\S+) |python (deploy/\S+)", TEXT, re.MULTILINE):
        assert (tmp_path / "".join(line)).exists()
    assert "secrets/" in (ROOT / ".gitignore").read_text().splitlines()  # where docs/howto/docker.md puts API keys
