"""Read the deployment files: what their containers run, as processes for this machine.

::

    services = read_compose(COMPOSE, {"PHOTOS": "/somewhere"})
    process = build_service_process(services["page"])  # process.argv, process.environment
    [page] = list_containers(read_manifests(KUBERNETES / "base")["Deployment", "stair-es-page"])
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from typer.main import get_command

from stair_es.cli.main import app

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
COMPOSE_CLUSTER = ROOT / "deploy" / "compose.cluster.yml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
KUBERNETES = ROOT / "deploy" / "kubernetes"
FOLDERS = ("base", "encoder", "ray", "ray-cluster")
"""Folders with whole manifests; the overlays only patch them."""

_VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?::([-?+])([^}]*))?\}")
_EXPANDED = re.compile(r"\$\((\w+)\)")
_ENDS = {"||", "&&", ";", "|", ">"}
Manifest = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Process:
    """What runs in a container."""

    argv: list[str]
    environment: dict[str, str]

    def replace_texts(self, texts: Mapping[str, str]) -> Process:
        """Return the process with texts in arguments and values replaced."""

        def replace_text(text: str) -> str:
            for old, new in texts.items():
                text = text.replace(old, new)
            return text

        return Process(
            argv=[replace_text(part) for part in self.argv],
            environment={name: replace_text(v) for name, v in self.environment.items()},
        )


def read_compose(path: Path, environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Read the services of a compose file and fill in variables.

    Raises:
        LookupError: If a required variable is missing.
    """
    services: dict[str, dict[str, Any]] = _fill_variables(yaml.safe_load(path.read_text()), environ)["services"]
    return services


def _fill_variables(node: Any, environ: Mapping[str, str]) -> Any:  # noqa: ANN401  a tree of YAML
    if isinstance(node, dict):
        return {name: _fill_variables(value, environ) for name, value in node.items()}
    if isinstance(node, list):
        return [_fill_variables(value, environ) for value in node]
    return _VARIABLE.sub(lambda match: _get_variable(match, environ), node) if isinstance(node, str) else node


def _get_variable(match: re.Match[str], environ: Mapping[str, str]) -> str:
    name, operator, text = match.groups()
    if name is None:
        return "$"
    value = environ.get(name, "")
    if operator == "+":
        return str(text) if value else ""
    if operator == "?" and not value:
        raise LookupError(f"{name}: {text}")
    return value or text or ""


def read_entrypoint() -> list[str]:
    """Return the entry point of our image."""
    [entry] = re.findall(r"^ENTRYPOINT (\[.*\])$", DOCKERFILE.read_text(), re.MULTILINE)
    argv: list[str] = json.loads(entry)
    return argv


def build_service_process(service: Mapping[str, Any]) -> Process:
    """Return the process of a service that uses our image."""
    argv = [*service.get("entrypoint", read_entrypoint()), *service.get("command", [])]
    return Process(argv=argv, environment=dict(service.get("environment", {})))


def build_health_command(service: Mapping[str, Any]) -> list[str]:
    """Return the command of its health check."""
    kind, *argv = service["healthcheck"]["test"]
    return argv if kind == "CMD" else ["sh", "-c", *argv]


def read_manifests(folder: Path) -> dict[tuple[str, str], Manifest]:
    """Return the resources of a kustomization by kind and name."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    files = [folder / name for name in kustomization["resources"]]
    documents = [document for path in files if path.is_file() for document in yaml.safe_load_all(path.read_text())]
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


def read_all_manifests() -> dict[tuple[str, str], Manifest]:
    """Return the resources of all folders."""
    return {key: document for name in FOLDERS for key, document in read_manifests(KUBERNETES / name).items()}


def list_pods(node: Any) -> Iterator[Manifest]:  # noqa: ANN401  a tree of YAML
    """Yield the pod specifications below a node."""
    if isinstance(node, dict):
        if "containers" in node:
            yield node
        for value in node.values():
            yield from list_pods(value)
    elif isinstance(node, list):
        for value in node:
            yield from list_pods(value)


def list_containers(node: Any) -> list[Manifest]:  # noqa: ANN401  a tree of YAML
    """Return the containers below a node."""
    return [container for pod in list_pods(node) for container in pod["containers"]]


def build_container_process(container: Mapping[str, Any], secrets: Mapping[str, str]) -> Process:
    """Return the process of a container; `secrets` holds the values of referenced Secrets by key."""
    variables = container.get("env", [])
    environment = {
        variable["name"]: variable["value"] if "value" in variable else secrets[variable["valueFrom"]["secretKeyRef"]["key"]]
        for variable in variables
    }
    arguments = [_EXPANDED.sub(lambda match: environment[match[1]], part) for part in container.get("args", [])]
    return Process(argv=[*container.get("command", read_entrypoint()), *arguments], environment=environment)


def list_commands(text: str) -> Iterator[list[str]]:
    """Yield the arguments of each `stair-es` call in a shell script."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while "stair-es" in words:
            words = words[words.index("stair-es") + 1 :]
            end = next((index for index, word in enumerate(words) if word in _ENDS), len(words))
            yield words[:end]


def check_arguments(arguments: list[str]) -> None:
    """Parse arguments with the named command; raises Typer's error if they are invalid."""
    group: Any = get_command(app)
    group.commands[arguments[0]].make_context(arguments[0], arguments[1:])


def list_stair_es_calls(process: Process) -> list[list[str]]:
    """Return the arguments of each `stair-es` call of a process, direct or in its shell script."""
    if process.argv[0] == "stair-es":
        return [process.argv[1:]]
    return [line for part in process.argv for line in list_commands(part)] if process.argv[:2] == ["sh", "-c"] else []
