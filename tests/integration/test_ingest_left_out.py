"""`stair-es ingest` leaves out hidden files and links out of the folder, reports them, and includes them if requested."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.testing import CliRunner

from stair_es.cli.main import app

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

PHOTOS = sorted((Path(__file__).parents[2] / "examples" / "photos").glob("*.jpg"))


def test_resync_removes_excluded_files(client: OpenSearch, node_url: str, index_name: str, tmp_path: Path) -> None:
    for photo, place in zip(PHOTOS, ("photos/a.jpg", "photos/.old/b.jpg", "private/c.jpg"), strict=False):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, tmp_path / place)
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "private")

    def ingest(*options: str) -> tuple[dict[str, Any], str]:
        arguments = ["ingest", str(tmp_path / "photos"), "-i", index_name, "--url", node_url, "--runner", "local", "--json"]
        result = CliRunner().invoke(app, [*arguments, *options])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout), result.stderr

    report, output = ingest("--hidden", "--follow-links")
    assert report["written"] == 3
    assert "left out" not in output
    report, output = ingest("--resync")
    assert (report["seen"], report["unchanged"] + report["written"], report["removed"]) == (1, 1, 2)
    assert "1 hidden file or folder left out (include with --hidden), 1 link out of the source left out" in " ".join(
        output.split()
    )
    client.indices.refresh(index=index_name)
    hits = client.search(index=index_name, body={"query": {"match_all": {}}})["hits"]["hits"]
    assert [hit["_source"]["uri"] for hit in hits] == [(tmp_path / "photos" / "a.jpg").as_uri()]
