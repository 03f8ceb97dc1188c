"""The manifests, as far as they can be checked without docker and Kubernetes: structure, references, and every command line.

The fields are those of KubeRay 1.6 and Kubernetes 1.30 that the manifests use: a misspelt one is dropped without a word by
an API server, so that it must not pass here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from stair_es.cli.main import app
from typer.main import get_command

from stair_es.cluster.security import OPTIONS, SECRETS
from stair_es.config import ENV_HOME, ENV_URL

ROOT = Path(__file__).parents[2]
RAYJOB = ROOT / "deploy" / "kuberay" / "rayjob.yaml"
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"

_FILES = {*(f"{name}_FILE" for name in SECRETS.values()), *(name for name in OPTIONS.values() if name.endswith("_FILE"))}
"""Variables that name a file."""

_JOB = {
    "activeDeadlineSeconds": int,
    "backoffLimit": int,
    "clusterSelector": dict,
    "entrypoint": str,
    "entrypointNumCpus": float,
    "preRunningDeadlineSeconds": int,
    "rayClusterSpec": dict,
    "runtimeEnvYAML": str,
    "shutdownAfterJobFinishes": bool,
    "submissionMode": str,
    "submitterConfig": dict,
    "submitterPodTemplate": dict,
    "suspend": bool,
    "ttlSecondsAfterFinished": int,
}
_CLUSTER = {
    "authOptions": dict,
    "rayVersion": str,
    "headGroupSpec": dict,
    "workerGroupSpecs": list,
    "enableInTreeAutoscaling": bool,
}
_HEAD = {"rayStartParams": dict, "template": dict, "serviceType": str}
_WORKERS = {**_HEAD, "groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int}
_POD = {
    "automountServiceAccountToken": bool,
    "containers": list,
    "nodeSelector": dict,
    "securityContext": dict,
    "serviceAccountName": str,
    "tolerations": list,
    "volumes": list,
}
_CONTAINER = {
    "env": list,
    "envFrom": list,
    "image": str,
    "name": str,
    "resources": dict,
    "securityContext": dict,
    "volumeMounts": list,
}
_SERVICE = {
    "build",
    "command",
    "depends_on",
    "environment",
    "healthcheck",
    "image",
    "ports",
    "profiles",
    "shm_size",
    "volumes",
}


def _fits(value: Mapping[str, Any], fields: Mapping[str, type]) -> None:
    for name, content in value.items():
        assert name in fields, name
        assert type(content) is fields[name], name


def _documents() -> dict[str, dict[str, Any]]:
    return {document["kind"]: document for document in yaml.safe_load_all(RAYJOB.read_text())}


def _groups() -> list[dict[str, Any]]:
    cluster = _documents()["RayJob"]["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def _services() -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
    return services


def _command_lines() -> Iterator[tuple[str, list[str]]]:
    """Every line of the manifests and of the pages about them that runs `stair-es`."""
    script = _documents()["ConfigMap"]["data"]["ingest.sh"]
    texts = {RAYJOB.name: script, **{name: str(service.get("command", "")) for name, service in _services().items()}}
    for page in ("ray.md", "plugins.md"):
        texts[page] = "\n".join(re.findall(r"^\$ (.*(?:\\\n.*)*)$", (ROOT / "docs" / page).read_text(), re.MULTILINE))
    for name, text in texts.items():
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "stair-es" in words:
                yield name, words[words.index("stair-es") + 1 :]


def test_there_is_a_rayjob_whose_fields_kuberay_knows() -> None:
    job = _documents()["RayJob"]
    assert job["apiVersion"] == "ray.io/v1"
    assert set(job) == {"apiVersion", "kind", "metadata", "spec"}
    _fits(job["spec"], _JOB)
    _fits(job["spec"]["rayClusterSpec"], _CLUSTER)
    _fits(job["spec"]["rayClusterSpec"]["headGroupSpec"], _HEAD)
    for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        _fits(group, _WORKERS)
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in _groups():
        _fits(group["template"]["spec"], _POD)
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        for container in group["template"]["spec"]["containers"]:
            _fits(container, _CONTAINER)


def test_a_finished_job_frees_its_cluster_and_a_failed_one_goes_on() -> None:
    spec = _documents()["RayJob"]["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] >= 0
    assert spec["backoffLimit"] >= 1


def test_pods_are_not_root_and_have_bounds() -> None:
    images = set()
    for group in _groups():
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        for container in pod["containers"]:
            images.add(container["image"])
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]
    assert len(images) == 1


def test_workers_have_gpus_and_the_node_that_keeps_the_books_does_no_work() -> None:
    head, *workers = _groups()
    assert head["rayStartParams"]["num-cpus"] == "0"
    for group in workers:
        [container] = group["template"]["spec"]["containers"]
        assert int(container["resources"]["limits"]["nvidia.com/gpu"]) >= 1
        assert container["resources"]["requests"]["nvidia.com/gpu"] == container["resources"]["limits"]["nvidia.com/gpu"]


def test_secrets_come_from_secrets() -> None:
    for group in _groups():
        for container in group["template"]["spec"]["containers"]:
            for variable in container["env"]:
                known = variable["name"] in SECRETS.values() or variable["name"] in (ENV_URL, *_FILES)
                assert known or variable["name"] == ENV_HOME, variable
                if "value" in variable and variable["name"] != ENV_HOME:
                    assert variable["name"] in _FILES
    for text in (RAYJOB.read_text(), COMPOSE.read_text()):
        uncommented = re.sub(r"#.*", "", text)
        assert not re.search(r"://[^/\s]*@|password|secret_access_key", uncommented, re.IGNORECASE)


def test_workers_get_no_credentials_of_the_cluster() -> None:
    _, *workers = _groups()
    for group in workers:
        pod = group["template"]["spec"]
        assert {variable["name"] for container in pod["containers"] for variable in container["env"]} == {ENV_HOME}
        assert [volume["secret"]["items"] for volume in pod["volumes"]] == [[{"key": "ca.crt", "path": "ca.crt"}]]


def test_nobody_runs_code_on_ray_from_outside() -> None:
    assert _documents()["RayJob"]["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    rays = [service for service in _services().values() if service.get("profiles") == ["ray"]]
    for service in rays:
        assert service["environment"]["RAY_AUTH_MODE"] == "disabled"
        assert "ports" not in service


def test_what_is_mounted_is_there() -> None:
    documents = _documents()
    for group in _groups():
        pod = group["template"]["spec"]
        [container] = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        folders = [mount["mountPath"] + "/" for mount in container["volumeMounts"]]
        files = [variable["value"] for variable in container["env"] if variable["name"] in _FILES]
        assert all(any(file.startswith(folder) for folder in folders) for file in files)
    head, *workers = _groups()
    assert all(_mounts(group)["cluster"] == _mounts(head)["cluster"] for group in workers)
    volumes = {volume["name"]: volume for volume in head["template"]["spec"]["volumes"]}
    assert volumes["ingest"]["configMap"]["name"] == documents["ConfigMap"]["metadata"]["name"]
    claim = documents["PersistentVolumeClaim"]["metadata"]["name"]
    assert volumes["dead-letters"]["persistentVolumeClaim"]["claimName"] == claim
    [script] = documents["ConfigMap"]["data"]
    assert documents["RayJob"]["spec"]["entrypoint"] == f"sh {_mounts(head)['ingest']}/{script}"
    [arguments] = [arguments for name, arguments in _command_lines() if name == RAYJOB.name]
    assert arguments[arguments.index("--dead-letters") + 1].startswith(_mounts(head)["dead-letters"] + "/")


def _mounts(group: dict[str, Any]) -> dict[str, str]:
    [container] = group["template"]["spec"]["containers"]
    return {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}


def test_the_compose_profile_is_whole() -> None:
    services = _services()
    assert {name for name, service in services.items() if service.get("profiles") == ["ray"]} == {
        "ray-head",
        "ray-worker",
        "ingest",
    }
    for service in services.values():
        assert set(service) <= _SERVICE
        needs = service.get("depends_on", [])
        assert set(needs) <= set(services)
        for name in needs if isinstance(needs, dict) else ():
            assert needs[name]["condition"] != "service_healthy" or "healthcheck" in services[name]
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
    assert (ROOT / services["ray-head"]["build"]["dockerfile"]).is_file()
    assert services["ray-head"]["image"] == services["ray-worker"]["image"] == services["ingest"]["image"]
    sources = {volume.split(":")[-2] for name in ("ray-head", "ray-worker") for volume in services[name]["volumes"]}
    [(_, arguments)] = [line for line in _command_lines() if line[0] == "ingest"]
    assert sources == {arguments[1]}


def test_image_and_manifest_agree_and_extras_exist() -> None:
    dockerfile = DOCKERFILE.read_text()
    version = _documents()["RayJob"]["spec"]["rayClusterSpec"]["rayVersion"]
    assert set(re.findall(r"rayproject/ray:([\d.]+)-", dockerfile)) == {version}
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = {extra for found in re.findall(r"EXTRAS=(\S+)", dockerfile) for extra in found.split(",")}
    assert extras
    assert extras <= set(setup["options.extras_require"])
    allowed = [line[1:] for line in DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"]
    assert {"stair_es", "cli", "mappings", "pipelines", "setup.cfg", "pyproject.toml"} <= set(allowed)
    assert [name for name in allowed if not (ROOT / name).exists()] == []


def _parse(arguments: list[str]) -> None:
    group: Any = get_command(app)
    group.commands[arguments[0]].make_context(arguments[0], arguments[1:])


@pytest.mark.parametrize(("where", "arguments"), list(_command_lines()))
def test_every_command_line_is_one_that_stair_es_takes(where: str, arguments: list[str]) -> None:
    _parse(arguments)


def test_both_manifests_have_a_command_line_that_joins_the_cluster() -> None:
    lines = [arguments for name, arguments in _command_lines() if name in (RAYJOB.name, "ingest")]
    assert len(lines) == 2
    for arguments in lines:
        assert arguments[0] == "ingest"
        assert arguments[arguments.index("--runner") + 1] == "ray"
        assert arguments[arguments.index("--ray-address") + 1] == "auto"


def test_an_option_that_does_not_exist_would_be_found() -> None:
    with pytest.raises(Exception, match="no-such-option"):
        _parse(["ingest", "photos", "--no-such-option"])
