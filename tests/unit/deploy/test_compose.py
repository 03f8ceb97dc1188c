"""The compose files without docker: exposed ports, secrets, command lines."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from support.deploy_files import (
    COMPOSE,
    COMPOSE_CLUSTER,
    DOCKERFILE,
    ROOT,
    build_service_process,
    check_arguments,
    list_stair_es_calls,
    read_compose,
)

Service = dict[str, Any]
VARIABLES = {
    "STAIR_ES_URL": "https://search.example.org:9200",
    "PAGE_NAME": "photos.example.org",
    "PHOTOS": "/home/anna/Pictures",
}
BOTH = {COMPOSE.name: read_compose(COMPOSE, {}), COMPOSE_CLUSTER.name: read_compose(COMPOSE_CLUSTER, VARIABLES)}
BY_ID = {f"{file}-{name}": service for file, services in BOTH.items() for name, service in services.items()}
ALL = [pytest.param(service, id=id_) for id_, service in BY_ID.items()]
OURS = [pytest.param(service, id=id_) for id_, service in BY_ID.items() if "build" in service]
INGESTS = [pytest.param(service, id=id_) for id_, service in BY_ID.items() if "ingest" in id_]
DEFAULT = {"opensearch", "dashboards", "ingest", "page"}


def runs_forever(service: Service) -> bool:
    return str(service.get("restart", "no")) != "no"


def test_up_starts_the_main_services_and_others_have_profiles() -> None:
    services = BOTH[COMPOSE.name]
    assert {name for name, service in services.items() if "profiles" not in service} == DEFAULT
    profiles = {name: service["profiles"] for name, service in services.items() if "profiles" in service}
    elasticsearch = {name for name, profile in profiles.items() if profile == ["elasticsearch"]}
    assert elasticsearch == {"elasticsearch", "kibana", "elasticsearch-ingest", "elasticsearch-page"}
    assert profiles["ray-head"] == profiles["ray-worker"] == ["ray"]
    assert profiles["encoder"] == BOTH[COMPOSE_CLUSTER.name]["encoder"]["profiles"] == ["encoder"]


@pytest.mark.parametrize("service", ALL)
def test_ports_are_published_on_loopback_only_and_ray_s_nowhere(service: Service) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    if "RAY_AUTH_MODE" in service.get("environment", {}):
        assert "ports" not in service
        assert service["environment"]["RAY_AUTH_MODE"] == "token"


def test_no_two_services_want_one_port() -> None:
    ports = [port.rpartition(":")[0] for service in BOTH[COMPOSE.name].values() for port in service.get("ports", [])]
    assert len(ports) == len(set(ports)) == 7


@pytest.mark.parametrize("service", ALL)
def test_services_have_a_health_check_a_limit_and_a_pinned_image(service: Service) -> None:
    assert ("healthcheck" in service) == runs_forever(service)
    assert service["mem_limit"].endswith("g")
    assert "no-new-privileges:true" in service["security_opt"]
    tag = service["image"].rpartition(":")[2]
    assert tag[0].isdigit()
    assert tag.count(".") == 2


@pytest.mark.parametrize("service", OURS)
def test_our_containers_can_write_and_have_few_rights(service: Service) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["tmpfs"] == ["/tmp"]
    assert "user" not in service  # the image's, which isn't root
    photos = [volume for volume in service["volumes"] if ":/photos" in volume]
    sees_photos = service["command"][0] != "encoder"
    assert [volume.rpartition(":")[2] for volume in photos] == ["ro"] * sees_photos
    target = service["build"]["target"] or "cpu"  # the Dockerfile's last stage
    assert f"-packages AS {target}\n" in DOCKERFILE.read_text()
    assert service["image"].endswith("-ray") == (target == "ray")
    context = ROOT / ("deploy" if service["build"]["context"] == ".." else "") / service["build"]["context"]
    assert (context / service["build"]["dockerfile"]).resolve() == DOCKERFILE


@pytest.mark.parametrize(("environ", "expected"), [({}, set()), ({"RUNNER": "ray"}, {"ingest"})])
def test_only_services_of_ray_use_the_image_with_ray(environ: dict[str, str], expected: set[str]) -> None:
    services = read_compose(COMPOSE, environ)
    targets = {name: service["build"]["target"] for name, service in services.items() if "build" in service}
    assert {name for name, target in targets.items() if target == "ray"} == {"ray-head", "ray-worker", *expected}


@pytest.mark.parametrize("file", BOTH)
def test_each_service_waits_for_something_that_exists(file: str) -> None:
    services = BOTH[file]
    for service in services.values():
        for name, wanted in service.get("depends_on", {}).items():
            needed = services[name]
            if wanted.get("required", True):
                assert set(needed.get("profiles", [])) <= set(service.get("profiles", []))  # else nobody starts it
            healthy = wanted["condition"] == "service_healthy"
            assert healthy == runs_forever(needed)
            assert healthy or wanted["condition"] == "service_completed_successfully"
    used = {volume.partition(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    assert {name for name in used if "/" not in name} == set(read_top_level(file, "volumes"))


def read_top_level(file: str, key: str) -> dict[str, Any]:
    return dict(yaml.safe_load(((ROOT if file == COMPOSE.name else ROOT / "deploy") / file).read_text()).get(key) or {})


def test_no_default_passwords() -> None:
    for path in (COMPOSE, COMPOSE_CLUSTER):
        words = " ".join(line.partition("#")[0] for line in path.read_text().splitlines()).lower()
        assert "password" not in words
        assert "://" not in words or "@" not in words
    environment = BOTH[COMPOSE.name]["opensearch"]["environment"]
    assert environment["DISABLE_SECURITY_PLUGIN"] == environment["DISABLE_INSTALL_DEMO_CONFIG"] == "true"


@pytest.mark.parametrize("missing", VARIABLES)
def test_secured_page_needs_its_settings(missing: str) -> None:
    with pytest.raises(LookupError, match=missing):
        read_compose(COMPOSE_CLUSTER, {name: value for name, value in VARIABLES.items() if name != missing})


def test_secrets_are_files_of_one_container() -> None:
    services, secrets = BOTH[COMPOSE_CLUSTER.name], read_top_level(COMPOSE_CLUSTER.name, "secrets")
    for service in services.values():
        files = {value for name, value in service["environment"].items() if name.endswith("_FILE")}
        assert files == {f"/run/secrets/{name}" for name in service["secrets"]}
        assert set(service["secrets"]) <= set(secrets)
    for name in ("page", "encoder"):
        assert "ingest-api-key" not in services[name]["secrets"]
    assert "page-token" not in services["encoder"]["secrets"]


@pytest.mark.parametrize("service", OURS)
def test_every_command_line_is_valid(service: Service, tmp_path: Path) -> None:
    process = build_service_process(service)
    for arguments in list_stair_es_calls(process.replace_texts({"$RUNNER": "auto", "/photos": str(tmp_path)})):
        if arguments != ["--help"]:
            check_arguments(arguments)
    assert list_stair_es_calls(process) or process.argv[0] == "ray" or "ray start" in process.argv[-1]


def test_ray_ingest_joins_the_configured_head() -> None:
    services = BOTH[COMPOSE.name]
    for name in ("ray-worker", "ingest"):
        assert "--address=ray-head:6379" in " ".join(build_service_process(services[name]).argv)
        assert services[name]["environment"]["RAY_AUTH_TOKEN_PATH"] == services["ray-head"]["environment"]["RAY_AUTH_TOKEN_PATH"]
    assert "--head --port=6379" in " ".join(build_service_process(services["ray-head"]).argv)


@pytest.mark.parametrize("service", INGESTS)
def test_stopped_ingest_gets_the_signal_and_time_to_end(service: Service, tmp_path: Path) -> None:
    """An engine sends SIGTERM to the first process alone, and kills the others when that one has ended."""
    program = tmp_path / "stair-es"
    program.write_text("#!/bin/sh\ntrap 'echo ended; exit 143' TERM\necho begun\nsleep 60 & wait\n")
    program.chmod(0o755)
    process = build_service_process(service)
    path = f"{tmp_path}:/usr/bin:/bin"
    with subprocess.Popen(
        process.argv,
        executable=None if process.argv[0] == "sh" else program,
        env={**process.environment, "PATH": path},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == "begun\n"
            running.send_signal(signal.SIGTERM)
            assert running.wait(120) == 143
        finally:
            with suppress(ProcessLookupError):  # nothing is left of it
                os.killpg(running.pid, signal.SIGKILL)
        assert running.stdout.read() == "ended\n"
    assert "--allow-failed" in " ".join(process.argv)
    assert service["stop_grace_period"] == "60s"


def test_ports_of_the_machine_can_be_others() -> None:
    services = read_compose(COMPOSE, {"PAGE_PORT": "8099", "OPENSEARCH_PORT": "9299"})
    assert services["page"]["ports"] == ["127.0.0.1:8099:8077"]
    assert services["opensearch"]["ports"] == ["127.0.0.1:9299:9200"]
