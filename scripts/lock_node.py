"""Write `stair_es/embedded_node/lock.json`, the lockfile with the jars of the embedded node and their hashes.

Run it to change the version of OpenSearch::

    python scripts/lock_node.py 3.8.0
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jgo.maven import MavenContext

from stair_es.embedded_node.lockfile import NodeLock

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.nodes.maven_locks import MODULES, check_classes, pin_artifact, plan_artifacts


def main() -> None:
    """Resolve, fetch and hash the jars, and write the lockfile."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", help="version of OpenSearch")
    parser.add_argument("--cache", type=Path, help="folder for the fetched files (default: a temporary one)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "stair_es" / "embedded_node" / "lock.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        context = MavenContext(repo_cache=args.cache or Path(scratch), timeout=60)
        entries = list(plan_artifacts(context, args.version, MODULES))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda artifact: artifact.resolve(), {str(a): a for _, a in entries}.values()))
        jars = [pin_artifact(entry) for entry in entries]
        check_classes(entries, MODULES)
    modules = tuple(sorted(MODULES.values(), key=lambda m: m.name))
    lock = NodeLock(opensearch=args.version, modules=modules, jars=tuple(sorted(jars, key=lambda jar: jar.path)))
    args.out.write_text(lock.to_json(), encoding="utf-8")
    print(f"{args.out}: OpenSearch {lock.opensearch}, {len(lock.jars)} jars, {lock.size_bytes / 1e6:.1f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
