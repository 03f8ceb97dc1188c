"""Which jars make up the Elasticsearch nodes that tests run against; as a program: pin them anew.

    cd tests && python -m support.nodes.elasticsearch_locks 8.17.0

Elasticsearch is fetched by the tests only. Nothing of it is shipped, and its license isn't ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from jgo.maven import Artifact, MavenContext
from jgo.parse import Coordinate

from stair_es.embedded_node.lockfile import Jar, NodeLock, NodeModule
from support.nodes.maven_locks import get_sort_key, pin_artifact, write_locks

SEVEN, EIGHT, NINE = "7.17.29", "8.17.0", "9.5.3"
_HERE = Path(__file__).parent
_SERVER, _PLUGINS = "org.elasticsearch", "org.elasticsearch.plugin"

# 7.17 takes its modules from the class path, so all jars lie in `lib`.
_SEVEN_PLUGINS = (
    "mapper-extras-client",
    "transport-netty4-client",
    "reindex-client",
    "parent-join-client",
    "lang-mustache-client",
    "percolator-client",
    "rank-eval-client",
    "aggs-matrix-stats-client",
)
# 8 and 9 want a folder a module. x-pack-core brings the `sparse_vector` query; its own plugin class would want a license service.
_MODULES = {
    "transport-netty4": "org.elasticsearch.transport.netty4.Netty4Plugin",
    "x-pack-core": "org.elasticsearch.xpack.core.XPackClientPlugin",
}
_NOT_SERVED = ((_PLUGINS, "x-pack-template-resources"),)


@dataclass(frozen=True, kw_only=True)
class ElasticModule(NodeModule):
    """A module of Elasticsearch 9."""

    def build_descriptor(self, opensearch: str) -> str:
        """Return the text of its `plugin-descriptor.properties`."""
        return super().build_descriptor(opensearch).replace("opensearch.version=", "elasticsearch.version=")


@dataclass(frozen=True, kw_only=True)
class ElasticLock(NodeLock):
    """The jars of one version of Elasticsearch."""

    @property
    def folder(self) -> str:
        """The name of the laid-out distribution."""
        return f"elasticsearch-{self.opensearch}-{self.digest[:12]}"


def read_lock(version: str) -> ElasticLock:
    """Read its lock file."""
    lock = NodeLock.from_json(_get_lock_path(version).read_text(encoding="utf-8"))
    modules = tuple(ElasticModule(name=m.name, classname=m.classname, extends=m.extends) for m in lock.modules)
    return ElasticLock(opensearch=lock.opensearch, modules=modules, jars=lock.jars)


def _get_lock_path(version: str) -> Path:
    return _HERE / f"elasticsearch-{version}.lock.json"


def _resolve_artifacts(context: MavenContext, group: str, artifact: str, version: str) -> list[Artifact]:
    dependency = context.create_dependency(
        Coordinate(group, artifact, version, scope="compile"), exclusions=[context.project(*left_out) for left_out in _NOT_SERVED]
    )
    direct, transitive = context.resolver.resolve([dependency])
    return [d.artifact for d in (*direct, *transitive) if d.scope in ("compile", "runtime")]


def _list_flat(context: MavenContext, version: str) -> Iterator[tuple[str, Artifact]]:
    artifacts = {get_sort_key(a): a for a in _resolve_artifacts(context, _SERVER, "elasticsearch", version)}
    for name in _SEVEN_PLUGINS:
        for artifact in _resolve_artifacts(context, _PLUGINS, name, version):
            artifacts.setdefault(get_sort_key(artifact), artifact)
    yield from (("lib", artifact) for artifact in artifacts.values())


def _list_modular(context: MavenContext, version: str) -> Iterator[tuple[str, Artifact]]:
    core = {get_sort_key(a): a for a in _resolve_artifacts(context, _SERVER, "elasticsearch", version)}
    yield from (("lib", artifact) for artifact in core.values())
    for name in _MODULES:
        artifacts = {get_sort_key(a): a for a in _resolve_artifacts(context, _PLUGINS, name, version)}
        yield from ((f"modules/{name}", artifact) for artifact_key, artifact in artifacts.items() if artifact_key not in core)


def pin_all(version: str, context: MavenContext) -> ElasticLock:
    """Resolve and fetch all jars of a version."""
    entries = list((_list_flat if version == SEVEN else _list_modular)(context, version))
    modules = {} if version == SEVEN else _MODULES
    with ThreadPoolExecutor(8) as pool:
        jars: list[Jar] = list(pool.map(pin_artifact, entries))
    return ElasticLock(
        opensearch=version,
        modules=tuple(ElasticModule(name=name, classname=cls) for name, cls in sorted(modules.items())),
        jars=tuple(sorted(jars, key=lambda jar: jar.path)),
    )


def main() -> None:
    """Resolve, fetch, hash, write."""
    write_locks(__doc__, (SEVEN, EIGHT, NINE), pin_all, _get_lock_path)


if __name__ == "__main__":
    main()
