"""Which jars make up the OpenSearch that takes the k-NN plugin; as a program: pin them anew.

    python tools/knn_lock.py

3.5.0 is the only 3.x whose plugin is to be had from Maven. For benchmarks and tests; nothing of it is shipped.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jgo.maven import Artifact, MavenContext
from lock_node import ICU, MODULE, MODULES, SERVER, key, pin, resolve, single

from stair_es.node.lockfile import Jar, Lock

VERSION = "3.5.0"
_AGENT = "3.8.0"  # its class AgentPolicy is needed, and not served for 3.5.0
_PATH = Path(__file__).with_name(f"opensearch-{VERSION}-knn.lock.json")


def read() -> Lock:
    """The lock file."""
    return Lock.from_json(_PATH.read_text(encoding="utf-8"))


def _server(context: MavenContext) -> Iterator[Artifact]:
    found = resolve(context, SERVER, "opensearch", VERSION)
    yield from found
    yield single(context, SERVER, "opensearch-agent-bootstrap", _AGENT)
    yield single(context, SERVER, "opensearch-plugin-classloader", VERSION)
    log4j = next(a.version for a in found if a.artifactId == "log4j-api")
    yield single(context, "org.apache.logging.log4j", "log4j-core", log4j)
    yield from (single(context, *icu) for icu in ICU)


def _plan(context: MavenContext) -> Iterator[tuple[str, Artifact]]:
    """As `lock_node.plan` has it."""
    core = {key(a): a for a in _server(context)}
    yield from (("lib", artifact) for artifact in core.values())
    trees = {m.name: {key(a): a for a in resolve(context, MODULE, name, VERSION)} for name, m in MODULES.items()}
    for module in MODULES.values():
        seen = set(core).union(*(trees[name] for name in module.extends))
        yield from ((f"modules/{module.name}", a) for name, a in trees[module.name].items() if name not in seen)


def main() -> None:
    """Resolve, fetch, hash, write."""
    with tempfile.TemporaryDirectory() as scratch:
        entries = list(_plan(MavenContext(repo_cache=Path(scratch), timeout=60)))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda artifact: artifact.resolve(), {str(a): a for _, a in entries}.values()))
            jars: list[Jar] = list(pool.map(pin, entries))
    modules = tuple(sorted(MODULES.values(), key=lambda m: m.name))
    lock = Lock(opensearch=VERSION, modules=modules, jars=tuple(sorted(jars, key=lambda jar: jar.path)))
    _PATH.write_text(lock.to_json(), encoding="utf-8")
    print(f"{_PATH}: OpenSearch {VERSION}, {len(jars)} jars, {lock.size_bytes / 1e6:.1f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
