"""An ingest as a process of its own, and what must be true after it was cut off and run again: see `faults.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stair_es.cluster.connect import Connection
from stair_es.cluster.documents import document_id

STAIR_ES = str(Path(sys.executable).with_name("stair-es"))


def ingest(url: str, index: str, photos: Path, *options: str) -> subprocess.Popen[str]:
    """The installed command, in a process group of its own."""
    return subprocess.Popen(
        [STAIR_ES, "ingest", str(photos), "--url", url, "--index", index, "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    """Exit code, and the last line of JSON, if there is one."""
    out, err = process.communicate(timeout=900)
    lines = [line for line in out.splitlines() if line.startswith("{")]
    return process.returncode, json.loads(lines[-1]) if lines else {"error": err[-500:]}


def check(url: str, index: str, photos: Path) -> list[str]:
    """What is wrong after a rerun; nothing, if all is well."""
    code, report = finish(ingest(url, index, photos, "--runner", "local"))
    if code:
        return [f"the rerun failed: {report.get('error', report)}"]
    wrong, images = [], sum(1 for _ in photos.iterdir())
    counts = {name: report[name] for name in ("seen", "written", "unchanged", "dead")}
    if counts["seen"] != images or counts["written"] + counts["unchanged"] + counts["dead"] != counts["seen"] or counts["dead"]:
        wrong.append(f"counts {counts}")
    code, again = finish(ingest(url, index, photos, "--runner", "local"))
    if code or again["unchanged"] != images:
        wrong.append(f"a second rerun found something to do: {again}")
    client = Connection(url=url, timeout_s=60).client()
    try:
        behind = list(client.indices.get_alias(name=index))
        if behind != [report["index"]]:
            wrong.append(f"alias stands for {behind}")
        names = list(client.indices.get(index=f"{index}-*"))
        if names != behind:
            wrong.append(f"indices {names}")
        settings = client.indices.get_settings(index=index, params={"flat_settings": "true"})[behind[0]]["settings"]
        if settings.get("index.refresh_interval") == "-1":
            wrong.append("refresh_interval was left at -1")
        wanted = {document_id(path.as_uri()) for path in photos.iterdir()}
        found = Counter(hit["_id"] for hit in _scan(client, index))
        if set(found) != wanted or max(found.values()) > 1:
            wrong.append(f"{len(wanted - set(found))} missing, {len(set(found) - wanted)} foreign, {sum(found.values())} in all")
        client.indices.delete(index=",".join(names))
    finally:
        client.close()
    return wrong


def _scan(client: Any, index: str) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    body = {"size": 5000, "_source": False, "query": {"match_all": {}}}
    answer = client.search(index=index, body=body, params={"scroll": "1m"})
    while answer["hits"]["hits"]:
        yield from answer["hits"]["hits"]
        answer = client.scroll(body={"scroll_id": answer["_scroll_id"], "scroll": "1m"})
