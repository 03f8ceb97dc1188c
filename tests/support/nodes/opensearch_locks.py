"""Which jars and plugins make up the OpenSearch nodes that tests run against; as a program: pin them anew.

    cd tests && python -m support.nodes.opensearch_locks 3.4.0 3.6.0

The embedded node has its own lock (`scripts/lock_node.py`). These versions are fetched by tests and benchmarks only; nothing of
them is shipped.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from jgo.maven import MavenContext

from stair_es.embedded_node.lockfile import Jar, NodeLock, NodeModule
from support.nodes import maven_locks

_HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A plugin as its project publishes it: a zip, and what has to be changed so that it loads."""

    folder: str
    """Its name below `plugins`."""
    archive: Jar
    jars: tuple[Jar, ...] = ()
    """Jars that the server of the distribution has and ours lacks."""
    standalone: bool = False
    """Whether to clear `extended.plugins` in its descriptor: what it extends isn't served, and isn't needed."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """A version of OpenSearch, and how it differs from the embedded one."""

    without: frozenset[str] = frozenset()
    """Modules that Maven doesn't serve in this version."""
    extra: tuple[tuple[str, NodeModule], ...] = ()
    """Artifact -> a module beside those of the embedded node."""
    plugins: tuple[Plugin, ...] = ()
    security_manager: bool = False
    """Whether it is of the 2.x line: it runs on Java 21, under Java's security manager, and names its modules otherwise."""


def _describe_zip(artifact: str, version: str, sha256: str, size_bytes: int) -> Jar:
    return Jar(
        group=maven_locks.MODULE, artifact=artifact, version=version, folder="plugins", sha256=sha256, size_bytes=size_bytes
    )


_SECURITY = Plugin(
    folder="opensearch-security",
    archive=_describe_zip(
        "opensearch-security", "3.4.0.0", "fc164c084979f7f793d295b6bca56bf8bee76dafb762adef9f14fa872e0a7596", 49_263_978
    ),
    jars=(
        Jar(
            group="org.apache.commons",
            artifact="commons-collections4",
            version="4.5.0",
            folder="plugins",
            sha256="00f93263c267be201b8ae521b44a7137271b16688435340bf629db1bac0a5845",
            size_bytes=898_652,
        ),
    ),
    standalone=True,
)
_KNN = Plugin(
    folder="opensearch-knn",
    archive=_describe_zip(
        "opensearch-knn", "3.6.0.0", "ac392ca28a39b3bf290648a422ef30cb149dda2963a9d7feb26060e932341c9a", 6_015_541
    ),
)
_NEURAL_SEARCH = Plugin(
    folder="opensearch-neural-search",
    archive=_describe_zip(
        "neural-search", "3.6.0.0", "6ef1b206e79391e2e36268e32dc34d27fd8b8a59a8eb0a7393c97d53b038e433", 12_095_213
    ),
)
_GRPC = NodeModule(name="transport-grpc", classname="org.opensearch.transport.grpc.GrpcPlugin")

OLDEST, SECURED, SPARSE, NEWEST = "2.19.1", "3.4.0", "3.6.0", "3.9.0"
RELEASES = {
    OLDEST: Release(security_manager=True),
    SECURED: Release(plugins=(_SECURITY,)),
    SPARSE: Release(
        without=frozenset({"lang-expression", "percolator-client", "rank-eval-client"}),
        extra=(("transport-grpc", _GRPC),),
        plugins=(_KNN, _NEURAL_SEARCH),
    ),
    NEWEST: Release(without=frozenset({"ingest-common", "lang-expression", "percolator-client"})),
}


def read_lock(version: str) -> NodeLock:
    """Return the lock of this version."""
    return NodeLock.from_json(_get_lock_path(version).read_text(encoding="utf-8"))


def _get_lock_path(version: str) -> Path:
    return _HERE / f"opensearch-{version}.lock.json"


def _select_modules(release: Release) -> dict[str, NodeModule]:
    modules = {**{name: m for name, m in maven_locks.MODULES.items() if name not in release.without}, **dict(release.extra)}
    if release.security_manager:
        return {name: replace(m, classname=m.classname.replace("ModulePlugin", "Plugin")) for name, m in modules.items()}
    return modules


def pin_version(version: str, context: MavenContext) -> NodeLock:
    """Resolve and fetch all jars of a version.

    Raises:
        SystemExit: One is damaged, or a module's class is in none of its jars.
    """
    modules = _select_modules(RELEASES[version])
    entries = list(maven_locks.plan_artifacts(context, version, modules))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda artifact: artifact.resolve(), {str(a): a for _, a in entries}.values()))
        jars: list[Jar] = list(pool.map(maven_locks.pin_artifact, entries))
    maven_locks.check_classes(entries, modules)
    return NodeLock(
        opensearch=version,
        modules=tuple(sorted(modules.values(), key=lambda module: module.name)),
        jars=tuple(sorted(jars, key=lambda jar: jar.path)),
    )


def main() -> None:
    """Resolve, fetch, hash, write."""
    maven_locks.write_locks(__doc__, tuple(RELEASES), pin_version, _get_lock_path)


if __name__ == "__main__":
    main()
