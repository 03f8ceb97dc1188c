"""Encode texts by a connector of ml-commons, with the classes that the plugin neural-search brings; see `RunConnector.java`.

ml-commons itself isn't served as a package. What runs here is its parser of connectors, its check of URLs, its functions before
a request and its reading of the response, and neural-search's reading of token weights; not the node around them.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from support.nodes import opensearch_locks
from support.nodes.java_tools import compile_launcher, find_jre
from support.nodes.opensearch_nodes import lay_out_release
from support.nodes.search_nodes import get_cache

_TIMEOUT_S = 120


def run_connector(connector_file: Path, trusted_patterns: Sequence[str], texts: Sequence[str]) -> list[dict[str, float]]:
    """Return the weights by token of each text.

    Args:
        connector_file: The request that creates the connector.
        trusted_patterns: Patterns of the URLs that the cluster allows.
        texts: Texts.

    Raises:
        RuntimeError: ml-commons refuses the connector, or the encoder the request.
    """
    home = lay_out_release(opensearch_locks.SPARSE)
    jars = [*(home / "lib").glob("*.jar"), *(home / "plugins").glob("*/*.jar")]
    classpath = os.pathsep.join(map(str, [*jars, compile_launcher("RunConnector", jars, 21, get_cache())]))
    done = subprocess.run(
        [find_jre(), "-XX:TieredStopAtLevel=1", "-cp", classpath, "RunConnector", connector_file, *trusted_patterns],
        input=json.dumps(texts).encode(),
        capture_output=True,
        timeout=_TIMEOUT_S,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace"))
    vectors: list[dict[str, float]] = json.loads(done.stdout)
    return vectors
