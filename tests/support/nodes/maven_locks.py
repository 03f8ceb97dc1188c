"""Resolve, fetch and pin the jars of a search node from Maven Central: what the lock files of all nodes are written with."""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from jgo.maven import Artifact, MavenContext
from jgo.parse import Coordinate

from stair_es.embedded_node.lockfile import Jar, NodeLock, NodeModule

SERVER, MODULE = "org.opensearch", "org.opensearch.plugin"

# Artifact of each module -> the module.
MODULES = {
    "lang-painless": NodeModule(name="lang-painless", classname="org.opensearch.painless.PainlessModulePlugin"),
    "mapper-extras-client": NodeModule(name="mapper-extras", classname="org.opensearch.index.mapper.MapperExtrasModulePlugin"),
    "transport-netty4-client": NodeModule(name="transport-netty4", classname="org.opensearch.transport.Netty4ModulePlugin"),
    "analysis-common": NodeModule(
        name="analysis-common",
        classname="org.opensearch.analysis.common.CommonAnalysisModulePlugin",
        extends=("lang-painless",),
    ),
    "ingest-common": NodeModule(
        name="ingest-common",
        classname="org.opensearch.ingest.common.IngestCommonModulePlugin",
        extends=("lang-painless",),
    ),
    "lang-mustache-client": NodeModule(name="lang-mustache", classname="org.opensearch.script.mustache.MustacheModulePlugin"),
    "lang-expression": NodeModule(name="lang-expression", classname="org.opensearch.script.expression.ExpressionModulePlugin"),
    "parent-join-client": NodeModule(name="parent-join", classname="org.opensearch.join.ParentJoinModulePlugin"),
    "reindex-client": NodeModule(name="reindex", classname="org.opensearch.index.reindex.ReindexModulePlugin"),
    "percolator-client": NodeModule(name="percolator", classname="org.opensearch.percolator.PercolatorModulePlugin"),
    "rank-eval-client": NodeModule(name="rank-eval", classname="org.opensearch.index.rankeval.RankEvalModulePlugin"),
    "aggs-matrix-stats-client": NodeModule(
        name="aggs-matrix-stats", classname="org.opensearch.search.aggregations.matrix.MatrixAggregationModulePlugin"
    ),
}

# The trimmed JRE has no Thai break iterator, and without one analysis-common lets no index be created: ICU brings it.
ICU = (("com.ibm.icu", "icu4j", "77.1"), ("com.ibm.icu", "icu4j-localespi", "77.1"))


def resolve(context: MavenContext, group: str, artifact: str, version: str) -> list[Artifact]:
    """Resolve it with its runtime needs."""
    dependency = context.create_dependency(Coordinate(group, artifact, version, scope="compile"))
    direct, transitive = context.resolver.resolve([dependency])
    return [d.artifact for d in (*direct, *transitive) if d.scope in ("compile", "runtime") and not is_native(d.artifact)]


def is_native(artifact: Artifact) -> bool:
    """Return whether it is machine code. Only HTTP/3, which is off, loads it; without it the lock suits every platform."""
    return str(artifact.artifactId) == "netty-codec-native-quic"


def resolve_single(context: MavenContext, group: str, artifact: str, version: str) -> Artifact:
    """Resolve it alone."""
    return context.project(group, artifact).at_version(version).artifact()


def resolve_server(context: MavenContext, version: str) -> list[Artifact]:
    """Resolve jars of `lib`."""
    artifacts = resolve(context, SERVER, "opensearch", version)
    if not version.startswith("2."):
        artifacts += resolve(context, SERVER, "opensearch-agent-bootstrap", version)  # Bootstrap fails without its AgentPolicy
    artifacts.append(resolve_single(context, SERVER, "opensearch-plugin-classloader", version))  # for modules that extend another
    log4j = next(a.version for a in artifacts if a.artifactId == "log4j-api")
    artifacts.append(
        resolve_single(context, "org.apache.logging.log4j", "log4j-core", log4j)
    )  # optional in the server's pom, but needed
    artifacts += [resolve_single(context, *icu) for icu in ICU]
    return artifacts


def plan_artifacts(context: MavenContext, version: str, modules: Mapping[str, NodeModule]) -> Iterable[tuple[str, Artifact]]:
    """Plan folder and artifact of every jar. A module gets what neither `lib` nor its base module has ("jar hell")."""
    core = {get_sort_key(a): a for a in resolve_server(context, version)}
    yield from (("lib", artifact) for artifact in core.values())
    trees = {m.name: {get_sort_key(a): a for a in resolve(context, MODULE, name, version)} for name, m in modules.items()}
    for module in modules.values():
        provided = set(core).union(*(trees[name] for name in module.extends))
        yield from ((f"modules/{module.name}", a) for name, a in trees[module.name].items() if name not in provided)


def get_sort_key(artifact: Artifact) -> tuple[str, str]:
    """Return a key without version."""
    if artifact.classifier or artifact.packaging != "jar":
        raise SystemExit(f"not a plain jar: {artifact}")
    return artifact.groupId, artifact.artifactId


def pin_artifact(entry: tuple[str, Artifact]) -> Jar:
    """The jar as fetched."""
    folder, artifact = entry
    content = artifact.resolve().read_bytes()
    with zipfile.ZipFile(artifact.resolve()) as archive:
        if archive.testzip() is not None:
            raise SystemExit(f"damaged: {artifact}")
    return Jar(
        group=artifact.groupId,
        artifact=artifact.artifactId,
        version=artifact.version,
        folder=folder,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
    )


def check_classes(entries: list[tuple[str, Artifact]], modules: Mapping[str, NodeModule]) -> None:
    """Check that each module's class is in its jars."""
    for module in modules.values():
        class_file = module.classname.replace(".", "/") + ".class"
        jars = [artifact.resolve() for folder, artifact in entries if folder == f"modules/{module.name}"]
        if not any(class_file in zipfile.ZipFile(jar).namelist() for jar in jars):
            raise SystemExit(f"{module.name}: no jar of it has {module.classname}")


def write_locks(
    description: str | None,
    supported: Sequence[str],
    pin_version: Callable[[str, MavenContext], NodeLock],
    path: Callable[[str], Path],
) -> None:
    """Pin the versions that the command line names, else all that are known, each to its path."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", metavar="VERSION", help=f"of {', '.join(supported)}")
    versions = parser.parse_args().versions
    if unknown := [version for version in versions if version not in supported]:
        parser.error(f"no such VERSION: {', '.join(unknown)}; there are {', '.join(supported)}")
    with tempfile.TemporaryDirectory() as temporary:
        context = MavenContext(repo_cache=Path(temporary), timeout=60)
        for version in versions or supported:
            lock = pin_version(version, context)
            path(version).write_text(lock.to_json(), encoding="utf-8")
            print(f"{path(version)}: {len(lock.jars)} jars, {lock.size_bytes / 1e6:.1f} MB", file=sys.stderr)
