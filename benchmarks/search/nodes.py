"""The node of the search benchmarks."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.http import Http

from stair_es.config.defaults import DataDir
from stair_es.embedded_node import NodeSpec, start_node, stop_node


@contextmanager
def open_node(args: argparse.Namespace) -> Iterator[Http]:
    """Connect to the user's cluster, or to a node that is started for it."""
    with tempfile.TemporaryDirectory(prefix="stair-es-query-") as folder:
        if args.url:
            http = Http(args.url)
            yield http
            http.close()
        elif args.plugins:
            sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
            from support.nodes.opensearch_nodes import build_plugin_node

            with build_plugin_node(Path(folder), heap=args.heap, full_jit=True) as search_node:
                http = Http(search_node.url)
                yield http
                http.close()
        else:
            spec = NodeSpec(
                dist=DataDir.from_env().dist,
                base=Path(folder) / "node",
                port=0,
                heap=args.heap,
                jit="full",
                die_with_parent=True,
            )
            try:
                http = Http(start_node(spec))
                yield http
                http.close()
            finally:
                stop_node(spec)
