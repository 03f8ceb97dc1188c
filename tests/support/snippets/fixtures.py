"""Where a page is tried: a home with pictures, a clone of the project, and what the made-up names of pages stand for."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import requests
import trustme
from moto.server import ThreadedMotoServer

from stair_es.config.defaults import DataDir
from stair_es.model.networks import minilm_download
from stair_es.model.stair import checkpoint
from stair_es.model.stair.configuration import TOKENIZER_FILE
from stair_es.model.stair.tokenizer import load_tokenizer
from stair_es.model.stair_mini import artifacts
from support.servers.recording_proxy import RecordedRequest, RecordingProxy, StubResponse
from support.servers.saved_objects_server import DashboardsServer
from support.snippets.pages import parse_blocks, parse_commands

ROOT = Path(__file__).parents[3]
PHOTOS = ROOT / "examples" / "photos"
_TIMEOUT_S = 60
_FEW = 6
"""Photos of a page that shows none, besides those that it names."""
_REGION = "eu-central-1"
_CLONE = ("examples", "benchmarks/data", "pipelines", "mappings", "deploy", "docs", "docker-compose.yml")
"""What pages use of a clone: copied, so that no page changes ours."""

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Taken from the tests: see the Makefile."""

_STORE = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": _REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True, kw_only=True)
class PageEnvironment:
    """Servers of all pages and replacements of names."""

    node_url: str
    places: Mapping[str, str]
    """Text of a page -> what stands here in its place."""
    environment: Mapping[str, str]
    python: Path
    """In front of the others on `PATH`."""

    def clear(self) -> None:
        """Delete the indices of a page."""
        for target in ("_ingest/pipeline/*", "_search/pipeline/*", "_index_template/*", "_data_stream/*"):
            requests.delete(f"{self.node_url}/{target}", timeout=_TIMEOUT_S)
        indices = requests.get(f"{self.node_url}/*?expand_wildcards=all&filter_path=*.settings.index.uuid", timeout=_TIMEOUT_S)
        for index in indices.json():
            requests.delete(f"{self.node_url}/{index}", timeout=_TIMEOUT_S).raise_for_status()
        state = requests.get(f"{self.node_url}/_cluster/state/metadata?filter_path=metadata.stored_scripts", timeout=_TIMEOUT_S)
        for script in state.json().get("metadata", {}).get("stored_scripts", {}):
            requests.delete(f"{self.node_url}/_scripts/{script}", timeout=_TIMEOUT_S).raise_for_status()


@contextmanager
def start_servers(node_url: str, folder: Path, script: Path) -> Iterator[PageEnvironment]:
    """Start loopback servers in place of those that pages name.

    `stair-es` is `script`; `https://search:9200` and its like are a proxy with TLS that wants a login; `s3://` is moto's server;
    dashboards are our imitation.
    """
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    trusted = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    api_key = folder / "api-key"
    api_key.write_text("id:key\n")
    with ExitStack() as stack:
        secured = stack.enter_context(RecordingProxy(node_url, tls=context, gate=_check_login))
        osd = stack.enter_context(DashboardsServer("opensearch-dashboards"))
        kibana = stack.enter_context(DashboardsServer("kibana", version="8.15.0"))
        store = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
        store.start()
        stack.callback(store.stop)
        endpoint = "http://{}:{}".format(*store.get_host_and_port())
        _fill_store(endpoint)
        yield PageEnvironment(
            node_url=node_url,
            places={
                "https://search.example.org:9200": secured.url,
                "https://search:9200": secured.url,
                "https://search-photos-abc.eu-central-1.es.amazonaws.com": secured.url,
                "/etc/ssl/search-ca.pem": str(trusted),
                "/run/secrets/search-api-key": str(api_key),
                "http://127.0.0.1:9200": node_url,
                "http://localhost:5601": osd.url,
                "https://dashboards:5601": osd.url,
                "https://kibana.example.org": kibana.url,
                "--host 0.0.0.0": "--host 127.0.0.1",
            },
            environment={
                "PATH": f"{script.parent}:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
                "LANG": "C.UTF-8",
                "COLUMNS": "100",
                "BROWSER": "true",
                **{name: os.environ[name] for name in _THREADS if name in os.environ},
                "STAIR_ES_URL": node_url,
                "AWS_ENDPOINT_URL": endpoint,
                "SSL_CERT_FILE": str(trusted),
                **_STORE,
            },
            python=script.with_name("python"),
        )


def _check_login(request: RecordedRequest) -> StubResponse | None:
    return None if "authorization" in request.headers else StubResponse(status=401, body=b'{"error": "who is it?"}')


def _fill_store(endpoint: str) -> None:
    store = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=_REGION,
        aws_access_key_id=_STORE["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=_STORE["AWS_SECRET_ACCESS_KEY"],
    )
    photos = sorted(PHOTOS.glob("*.jpg"))
    buckets = {bucket["Name"] for bucket in store.list_buckets()["Buckets"]}  # moto's servers in a process share what they hold
    for bucket, folder in {"archive": "2024/05/", "bucket": "photos/", "products": ""}.items():
        if bucket in buckets:
            continue
        store.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": _REGION})
        for photo in photos[:4]:
            for key in (folder, "products/"):
                store.put_object(Bucket=bucket, Key=key + photo.name, Body=photo.read_bytes())
    store.close()


def create_home(folder: Path, text: str) -> Path:
    """Make a home below `folder`: `~/Pictures`, the models that this machine has, and a clone, in which commands run.

    Args:
        folder: That of the user.
        text: Of the page. One that shows what is found among all photos has them all in `~/Pictures`; another one a few.

    Returns:
        The clone.
    """
    data, data_dir = folder / ".local" / "share" / "stair-es", DataDir.from_env()
    data.mkdir(parents=True)
    for name in ("models", "dist"):
        (data_dir.path / name).mkdir(parents=True, exist_ok=True)  # of a machine where nothing was downloaded yet
        (data / name).symlink_to(data_dir.path / name)
    (folder / ".curlrc").write_text("fail-with-body\n")  # an answer that is an error fails the page
    (folder / ".search").write_text("a-password\n")
    (folder / ".search").chmod(0o600)
    photos = sorted(PHOTOS.glob("*.jpg"))
    selected = photos if _needs_all_photos(text) else [each for each in photos if each in photos[:_FEW] or each.stem in text]
    clone = folder / "stair-es"
    for target, photos_there in ((folder / "Pictures", selected), (clone / "photos", photos)):
        target.mkdir(parents=True)
        for photo in photos_there:
            shutil.copy2(photo, target)
    for name in _CLONE:
        kind = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        kind(ROOT / name, clone / name)
    shutil.copy2(PHOTOS / "tabby-cat.jpg", clone / "some.jpg")
    return clone


def _needs_all_photos(text: str) -> bool:
    """Return whether a page shows photos that are found, or looks for words that nearly all have."""
    if "--uniformity" in text:
        return True
    console = [block for block in parse_blocks(text) if block.language == "console"]
    return any(".jpg" in line for block in console for command in parse_commands(block) for line in command.shown)


def _write_table(clone: Path) -> None:
    """`items.parquet`: photos by URL, with a title and a price."""
    lines = [json.loads(line) for line in (PHOTOS / "captions.jsonl").read_text().splitlines()][:6]
    urls = [f"photos/{line['file']}" for line in lines]
    pq.write_table(
        pa.table({"url": urls, "title": [line["caption"] for line in lines], "price": list(range(6))}), clone / "items.parquet"
    )


def _write_shop(clone: Path) -> None:
    """`shop.csv`: products with a picture, a price and a stock."""
    photos = sorted((clone / "photos").glob("*.jpg"))[:3]
    rows = [f"P-{number},{photo.stem},{number}.5,{number},{photo}" for number, photo in enumerate(photos, 1)]
    (clone / "shop.csv").write_text("\n".join(["sku,title,price,stock,image", *rows]))


def _write_zip(clone: Path) -> None:
    """`photos.zip`: two photos."""
    with zipfile.ZipFile(clone / "photos.zip", "w") as file:
        for photo in sorted(PHOTOS.glob("*.jpg"))[:2]:
            file.write(photo, photo.name)


def _write_picture(clone: Path) -> None:
    """`~/Pictures/a.jpg`: a cup of coffee."""
    shutil.copy2(PHOTOS / "espresso.jpg", clone.parent / "Pictures" / "a.jpg")


def _write_model(clone: Path) -> None:
    """`models/ours`: a model of one's own as `stair-es train` leaves it, with stair-mini's heads."""
    mini = artifacts.read_mini_artifacts()
    heads = {name: array for name, array in mini.arrays.items() if name.startswith(("image.", "text."))}
    heads["log_scale"] = np.zeros((), np.float32)  # the temperature of training: no search reads it
    tokenizer = load_tokenizer(minilm_download.ensure_minilm(DataDir.from_env().models) / TOKENIZER_FILE)
    checkpoint.save_checkpoint(
        clone / "models" / "ours", replace(mini.config, name="ours"), tokenizer, heads, "# ours\n", mini.vocabulary
    )


FIXTURES: dict[str, Callable[[Path], Any]] = {
    "items.parquet": _write_table,
    "shop.csv": _write_shop,
    "photos.zip": _write_zip,
    "Pictures/a.jpg": _write_picture,
    "models/ours": _write_model,
}
"""File that a page uses without making it -> how it is made."""


def create_files(clone: Path, text: str) -> None:
    """Make the files that a page uses without making them."""
    for name, make in FIXTURES.items():
        if name in text:
            make(clone)


def build_environment(made: PageEnvironment, folder: Path) -> dict[str, str]:
    """Return the environment of a page's shell."""
    return {**made.environment, "HOME": str(folder), "USER": "anna", "PYTHONPATH": str(folder / ".plugins")}
