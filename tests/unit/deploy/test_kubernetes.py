"""The manifests, as far as they can be checked without Kubernetes: its own schemas, references, rights, and every command line.

Kubernetes' schemas are of 1.34. The fields of KubeRay's own kinds are those of 1.6 that the manifests use: a misspelt one is
dropped without a word by an API server, so that it must not pass here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from support.deploy_files import (
    FOLDERS,
    KUBERNETES,
    build_container_process,
    check_arguments,
    list_commands,
    list_containers,
    list_pods,
    list_stair_es_calls,
    read_all_manifests,
    read_entrypoint,
    read_manifests,
)

from stair_es.cluster.client.auth import CLUSTER_VARIABLES

VERSION = "1.34"
ALL = read_all_manifests()
PODS = list(list_pods(list(ALL.values())))
NIGHTLY = ALL["CronJob", "stair-es-nightly"]["spec"]
RAY = [ALL["RayJob", "stair-es-ingest"], ALL["RayCluster", "stair-es"]]
SERVERS = ("page", "encoder")
SCRIPT = KUBERNETES / "ray" / "ingest.sh"
PLACEHOLDERS = {"url": "https://search.example.org:9200", "api-key": "id:key", "ca.crt": "", "token": "a-token-that-is-long"}

JOB_FIELDS = {
    "backoffLimit": int,
    "entrypoint": str,
    "rayClusterSpec": dict,
    "shutdownAfterJobFinishes": bool,
    "submitterPodTemplate": dict,
    "ttlSecondsAfterFinished": int,
}
CLUSTER_FIELDS = {
    "authOptions": dict,
    "autoscalerOptions": dict,
    "enableInTreeAutoscaling": bool,
    "headGroupSpec": dict,
    "rayVersion": str,
    "workerGroupSpecs": list,
}
AUTOSCALER_FIELDS = {"securityContext": dict, "volumeMounts": list}
HEAD_FIELDS = {"rayStartParams": dict, "template": dict}
WORKER_FIELDS = {**HEAD_FIELDS, "groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int}


def check_fields(value: Mapping[str, Any], fields: Mapping[str, type]) -> None:
    for name, content in value.items():
        assert name in fields, name
        assert type(content) is fields[name], name


def get_cluster_spec(ray: Mapping[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = ray["spec"].get("rayClusterSpec", ray["spec"])
    return spec


def list_groups(ray: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [get_cluster_spec(ray)["headGroupSpec"], *get_cluster_spec(ray)["workerGroupSpecs"]]


def validate_manifest(document: Mapping[str, Any]) -> None:
    pytest.importorskip("kubernetes_validate").validate(document, VERSION, strict=True)


@pytest.mark.parametrize("key", [key for key in ALL if not key[0].startswith("Ray")], ids="-".join)
def test_kubernetes_knows_every_field(key: tuple[str, str]) -> None:
    validate_manifest(ALL[key])


@pytest.mark.parametrize("ray", RAY, ids=lambda ray: ray["kind"])
def test_kuberay_and_kubernetes_know_every_field(ray: dict[str, Any]) -> None:
    assert ray["apiVersion"] == "ray.io/v1"
    if ray["kind"] == "RayJob":
        check_fields(ray["spec"], JOB_FIELDS)
    check_fields(get_cluster_spec(ray), CLUSTER_FIELDS)
    check_fields(get_cluster_spec(ray)["headGroupSpec"], HEAD_FIELDS)
    for group in get_cluster_spec(ray)["workerGroupSpecs"]:
        check_fields(group, WORKER_FIELDS)
        assert 1 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]  # a run looks at the first worker's GPUs
    for group in list_groups(ray):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    for pod in list_pods(ray):
        validate_manifest({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod})


def test_a_misspelt_field_would_be_found() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    with pytest.raises(kubernetes_validate.ValidationError, match="concurrencyPolcy"):
        validate_manifest({**ALL["CronJob", "stair-es-nightly"], "spec": {**NIGHTLY, "concurrencyPolcy": "Forbid"}})
    with pytest.raises(AssertionError, match="backofLimit"):
        check_fields({"backofLimit": 1}, JOB_FIELDS)


@pytest.mark.parametrize("pod", PODS, ids=lambda pod: pod["containers"][0]["name"])
def test_pods_have_few_rights_and_bounds(pod: dict[str, Any]) -> None:
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] == 1000
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        rights = container["securityContext"]
        assert rights == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert ALL["Namespace", "stair-es"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("pod", PODS, ids=lambda pod: pod["containers"][0]["name"])
def test_mounted_files_exist_and_secrets_are_files(pod: dict[str, Any]) -> None:
    [container] = pod["containers"]
    folders = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(folders) == {volume["name"] for volume in pod["volumes"] if volume["name"] != "kubernetes"}  # of the autoscaler
    for variable in container.get("env", []):
        name = variable["name"]
        # A secret is in a file, never in a variable that every process of the container shows.
        assert name not in CLUSTER_VARIABLES.secrets.values()
        if (
            name.removesuffix("_FILE") in {*CLUSTER_VARIABLES.secrets.values(), "STAIR_ES_SERVE_TOKEN", "STAIR_ES_ENCODER_TOKEN"}
            or name in CLUSTER_VARIABLES.options.values()
        ):
            assert variable["value"].startswith(folders["secrets"] + "/")
    for volume in pod["volumes"]:
        if "persistentVolumeClaim" in volume:
            assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in ALL
        if "configMap" in volume:
            assert volume["configMap"]["name"] in {one["name"] for one in read_kustomization("ray")["configMapGenerator"]}
        if "secret" in volume:
            assert volume["secret"]["secretName"] in ("stair-es-page", "stair-es-ingest", "stair-es-encoder")


@pytest.mark.parametrize("name", SERVERS)
def test_servers_have_secrets_of_their_own(name: str) -> None:
    manifest = yaml.safe_dump(ALL["Deployment", f"stair-es-{name}"])
    assert f"secretName: stair-es-{name}" in manifest
    for other in {*SERVERS, "ingest", "store"} - {name}:
        assert f"stair-es-{other}" not in manifest


def test_no_secret_is_written_down() -> None:
    for path in KUBERNETES.rglob("*.yaml"):
        text = re.sub(r"#.*", "", path.read_text())
        assert not re.search(r"://[^/\s]*@|password|secret_access_key|kind: Secret", text, re.IGNORECASE), path


@pytest.mark.parametrize("ray", RAY, ids=lambda ray: ray["kind"])
def test_ray_workers_get_no_cluster_credentials(ray: dict[str, Any]) -> None:
    head, *workers = list_groups(ray)
    assert head["rayStartParams"]["num-cpus"] == "0"
    for group in workers:
        [pod] = list_pods(group)
        assert {variable["name"] for container in pod["containers"] for variable in container["env"]} <= {
            "STAIR_ES_HOME",
            "HF_HOME",
        }
        [secret] = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
        assert secret["items"] == [{"key": "ca.crt", "path": "ca.crt"}]
        mounts = [{mount["name"]: mount["mountPath"] for mount in one["volumeMounts"]} for one in list_containers([head, group])]
        assert mounts[0]["secrets"] == mounts[1]["secrets"]  # the authority is at the same path everywhere
    assert get_cluster_spec(ray)["authOptions"] == {"mode": "token"}
    policy = ALL["NetworkPolicy", "stair-es-ray"]["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    assert all("podSelector" in peer for rule in policy["ingress"] for peer in rule["from"])


def test_only_the_autoscaler_may_change_the_cluster() -> None:
    spec = get_cluster_spec(RAY[0])
    check_fields(spec["autoscalerOptions"], AUTOSCALER_FIELDS)
    [head] = list_containers(spec["headGroupSpec"])
    assert spec["autoscalerOptions"]["securityContext"] == head["securityContext"]
    autoscaler = {**head, **spec["autoscalerOptions"], "name": "autoscaler"}
    [pod] = list_pods(spec["headGroupSpec"])
    both = {**pod, "containers": [head, autoscaler]}
    validate_manifest({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": both})
    [account] = {mount["mountPath"] for mount in autoscaler["volumeMounts"] if mount["name"] == "kubernetes"}
    assert account == "/var/run/secrets/kubernetes.io/serviceaccount"  # where Ray reads it
    assert "kubernetes" not in {mount["name"] for mount in head["volumeMounts"]}
    [encoders] = [variable["value"] for variable in head["env"] if variable["name"] == "ENCODERS"]
    [workers] = spec["workerGroupSpecs"]
    assert encoders == f"{workers['minReplicas']}..{workers['maxReplicas']}"


def test_a_rayjob_frees_its_cluster_and_is_retried() -> None:
    spec = ALL["RayJob", "stair-es-ingest"]["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] >= 0
    assert spec["backoffLimit"] >= 1
    assert "activeDeadlineSeconds" not in spec  # KubeRay doesn't retry after it
    [mount] = [mount for mount in list_containers(list_groups(RAY[0])[0])[0]["volumeMounts"] if mount["name"] == "ingest"]
    assert spec["entrypoint"] == f"sh {mount['mountPath']}/{SCRIPT.name}"
    assert read_kustomization("ray")["configMapGenerator"][0]["files"] == [SCRIPT.name]


def test_what_outlives_a_rayjob_is_on_its_own_volume() -> None:
    """Ours alone: a volume of the nightly sync on another node would keep the head from starting."""
    claim = ALL["PersistentVolumeClaim", "stair-es-ray"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert "stair-es-ray" not in yaml.safe_dump(NIGHTLY)
    for group in list_groups(RAY[0]):
        [pod], [container] = list_pods(group), list_containers(group)
        assert {"name": "shared", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}} in pod["volumes"]
        [folder] = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "shared"]
        assert all(variable["value"].startswith(f"{folder}/") for variable in container["env"] if variable["name"] == "HF_HOME")
        assert f"{folder}/logs" in container["lifecycle"]["preStop"]["exec"]["command"][-1]
        assert pod["terminationGracePeriodSeconds"] >= 60
    [command] = list_commands(SCRIPT.read_text())
    assert command[command.index("--dead-letters") + 1].startswith(f"{folder}/")


def test_prometheus_finds_the_metrics_of_an_ingest() -> None:
    template = get_cluster_spec(RAY[0])["headGroupSpec"]["template"]
    port = int(template["metadata"]["annotations"]["prometheus.io/port"])
    [head] = list_containers(template)
    assert [each["containerPort"] for each in head["ports"]] == [port]
    assert f"--metrics-port {port} --metrics-host 0.0.0.0" in SCRIPT.read_text()
    assert any(rule.get("ports") == [{"port": port}] for rule in ALL["NetworkPolicy", "stair-es-ray"]["spec"]["ingress"])


def test_nightly_runs_do_not_overlap_or_retry_failed_images() -> None:
    assert NIGHTLY["concurrencyPolicy"] == "Forbid"
    assert NIGHTLY["startingDeadlineSeconds"] > 100  # CronJobs that may be later than that count missed starts
    job = NIGHTLY["jobTemplate"]["spec"]
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # podFailurePolicy wants it
    [container] = list_containers(job)
    codes, disruption = job["podFailurePolicy"]["rules"]
    assert codes["action"] == "FailJob"
    assert codes["onExitCodes"] == {"containerName": container["name"], "operator": "In", "values": [2, 3]}
    assert disruption == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    arguments = container["args"]
    assert arguments[arguments.index("--dead-letters") + 1].startswith("/dead-letters/")


@pytest.mark.parametrize("name", SERVERS)
def test_services_policies_and_probes_match_the_deployment(name: str) -> None:
    deployment, service = ALL["Deployment", f"stair-es-{name}"]["spec"], ALL["Service", f"stair-es-{name}"]["spec"]
    [server] = list_containers(deployment)
    [port] = server["ports"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"].items() <= labels.items()
    assert service["selector"].items() <= labels.items()
    assert service["ports"][0]["targetPort"] == port["name"]
    probes = [value for key, value in server.items() if key.endswith("Probe")]
    assert {probe["httpGet"]["port"] for probe in probes} == {port["name"]}
    assert {probe["httpGet"]["path"] for probe in probes} == {"/health"}
    assert {"startupProbe", "livenessProbe"} <= set(server)
    assert f"--port={port['containerPort']}" in "=".join(server["args"])
    policy = ALL["NetworkPolicy", f"stair-es-{name}"]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["ingress"] == [{"ports": [{"port": port["name"]}]}]


def test_pods_are_under_the_policy_that_closes_everything() -> None:
    ours = ALL["NetworkPolicy", "stair-es"]["spec"]["podSelector"]["matchLabels"]
    deployments = [ALL["Deployment", f"stair-es-{name}"]["spec"] for name in SERVERS]
    for template in (*(one["template"] for one in deployments), NIGHTLY["jobTemplate"]["spec"]["template"]):
        assert ours.items() <= template["metadata"]["labels"].items()


def test_encoder_scales_and_ends_without_lost_requests() -> None:
    deployment, scaler = ALL["Deployment", "stair-es-encoder"]["spec"], ALL["HorizontalPodAutoscaler", "stair-es-encoder"]["spec"]
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "stair-es-encoder"}
    assert "replicas" not in deployment  # applying it again would undo what the autoscaler did
    [encoder] = list_containers(deployment)
    assert {metric["resource"]["name"] for metric in scaler["metrics"]} <= set(encoder["resources"]["requests"])
    budget = ALL["PodDisruptionBudget", "stair-es-encoder"]["spec"]
    assert budget["selector"]["matchLabels"] == deployment["selector"]["matchLabels"]
    assert budget["minAvailable"] < scaler["minReplicas"]  # else a node could never be drained
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    left_s = deployment["template"]["spec"]["terminationGracePeriodSeconds"] - encoder["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert left_s >= 30


def read_kustomization(folder: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((KUBERNETES / folder / "kustomization.yaml").read_text())
    return content


@pytest.mark.parametrize("folder", [*FOLDERS, "overlays/gpu", "overlays/example"])
def test_kustomizations_name_files_that_exist_and_all_of_them(folder: str) -> None:
    at, content = KUBERNETES / folder, read_kustomization(folder)
    files = [*content["resources"], *(patch["path"] for patch in content.get("patches", []))]
    files += [name for one in content.get("configMapGenerator", []) for name in one["files"]]
    assert all((at / name).exists() for name in files)
    assert {path.name for path in at.iterdir()} == {"kustomization.yaml", *(name for name in files if not name.startswith(".."))}
    names = {container["image"] for container in list_containers(list(read_manifests(at).values()))}
    assert names <= {"stair-es"}
    if folder in FOLDERS:
        assert content["namespace"] == "stair-es"
        assert [image["name"] for image in content["images"]] == ["stair-es"]


@pytest.mark.parametrize("name", ["page", "nightly"])
def test_example_patches_match_their_base(name: str) -> None:
    patch = yaml.safe_load((KUBERNETES / "overlays" / "example" / f"{name}.yaml").read_text())
    patched = ALL[patch["kind"], patch["metadata"]["name"]]
    assert set(list_leaf_paths(patch["spec"])) <= set(list_leaf_paths(patched["spec"]))


def list_leaf_paths(node: Any, at: str = "") -> Iterator[str]:  # noqa: ANN401  a tree of YAML
    """Where its leaves are; entries of a list by their names, as Kubernetes merges them."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from list_leaf_paths(value, f"{at}/{key}")
    elif isinstance(node, list):
        for value in node:
            yield from list_leaf_paths(value, f"{at}/{value['name'] if isinstance(value, dict) and 'name' in value else value}")
    else:
        yield at


def test_gpu_patch_matches_its_base_and_assigns_one_gpu() -> None:
    operations = yaml.safe_load((KUBERNETES / "overlays" / "gpu" / "workers.yaml").read_text())
    for operation in operations:
        *way, last = operation["path"].strip("/").split("/")
        node: Any = ALL["RayJob", "stair-es-ingest"]
        for step in way:
            node = node[int(step) if isinstance(node, list) else step]
        assert (last == "-" and isinstance(node, list)) or (last in node) == (operation["op"] == "replace")
    [resources] = [operation["value"] for operation in operations if operation["path"].endswith("/resources")]
    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == "1"
    variables = {operation["value"]["name"] for operation in operations if operation["path"].endswith("/env/-")}
    assert all(f"${{{name}:-" in SCRIPT.read_text() for name in variables)


def list_command_lines() -> Iterator[tuple[str, list[str]]]:
    for container in list_containers(list(ALL.values())):
        if "args" in container:
            yield from (
                (container["name"], line) for line in list_stair_es_calls(build_container_process(container, PLACEHOLDERS))
            )
    script = SCRIPT.read_text()
    for name, value in {"SOURCE": "s3://b/c/", "GPUS_PER_ENCODER:-0": "0.5", "ENCODERS:-0": "4"}.items():
        script = script.replace(f"${{{name}}}", value).replace(f"${name}", value)
    yield from ((SCRIPT.name, line) for line in list_commands(script))


LINES = list(list_command_lines())


@pytest.mark.parametrize(("where", "arguments"), LINES)
def test_every_command_line_is_valid(where: str, arguments: list[str]) -> None:
    check_arguments(arguments)


def test_servers_nightly_and_rayjob_have_one() -> None:
    found = {where: arguments[0] for where, arguments in LINES if where in (*SERVERS, "ingest", SCRIPT.name)}
    assert found == {"page": "serve", "encoder": "encoder", "ingest": "ingest", SCRIPT.name: "ingest"}
    assert read_entrypoint() == ["stair-es"]


def test_an_option_that_does_not_exist_would_be_found() -> None:
    with pytest.raises(Exception, match="no-such-option"):
        check_arguments(["ingest", "photos", "--no-such-option"])
