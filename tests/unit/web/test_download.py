"""Downloads of originals."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest
from PIL import Image
from support.corpora.camera_photos import LISBON_XMP, build_camera_photo
from support.corpora.documents import build_pdf

from stair_es.sources.io.uris import to_file_uri
from stair_es.web.errors import RequestRejected
from stair_es.web.originals import AllowedRoots, DownloadResponse, build_content_disposition, build_file_name, open_download


@pytest.fixture
def photo_root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    Image.new("RGB", (8, 6), "red").save(folder / "red.png")
    (folder / "secret.txt").write_text("a password")
    (folder / "page.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    (folder / "false.jpg").write_text("<!doctype html><script>alert(1)</script>")
    (folder / "lease.pdf").write_bytes(build_pdf(["one", "two"]))
    Image.new("RGB", (8, 6)).save(tmp_path / "outside.png")
    return folder


def test_the_bytes_of_an_image_are_read_in_parts(photo_root: Path) -> None:
    path = photo_root / "red.png"
    download = open_download(AllowedRoots.from_folders([photo_root]), to_file_uri(path), 10_000, 1000)
    assert download is not None
    assert (download.name, download.size_bytes) == ("red.png", path.stat().st_size)
    assert b"".join(download.read_chunks()) == path.read_bytes()
    download.file.close()


def test_a_page_is_downloaded_as_its_whole_document(photo_root: Path) -> None:
    roots, uri = AllowedRoots.from_folders([photo_root]), to_file_uri(photo_root / "lease.pdf")
    download = open_download(roots, f"{uri}#page=2", 10_000, 4_200_000)
    assert download is not None
    assert (download.name, download.file.read()) == ("lease.pdf", (photo_root / "lease.pdf").read_bytes())
    download.file.close()
    for other in (uri, f"{uri}#page=3", f"{uri}#page=x", f"{to_file_uri(photo_root / 'secret.txt')}#page=1"):
        assert open_download(roots, other, 10_000, 4_200_000) is None


def test_the_file_is_closed_if_the_client_disconnects(photo_root: Path) -> None:
    download = open_download(AllowedRoots.from_folders([photo_root]), to_file_uri(photo_root / "red.png"), 10_000, 1000)
    assert download is not None

    async def disconnect_client() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def wait_until_cancelled(_: object) -> None:
        await asyncio.Event().wait()

    scope = {"type": "http", "asgi": {"spec_version": "2.3"}}
    asyncio.run(DownloadResponse(download)(scope, disconnect_client, wait_until_cancelled))
    assert download.file.closed


@pytest.mark.parametrize("name", ["secret.txt", "page.svg", "false.jpg", "missing.png", "../outside.png", ""])
def test_what_is_no_image_below_a_root_is_not_opened(photo_root: Path, name: str) -> None:
    assert open_download(AllowedRoots.from_folders([photo_root]), to_file_uri(photo_root / name), 10_000, 1000) is None


def test_a_file_above_the_limit_is_not_opened(photo_root: Path) -> None:
    uri = to_file_uri(photo_root / "red.png")
    assert open_download(AllowedRoots.from_folders([photo_root]), uri, 10, 1000) is None
    assert open_download(AllowedRoots(), uri, 10_000, 1000) is None


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("file:///p/a%20b.jpg", "a b.jpg"),
        ("file:///p/%E6%A1%9C.jpg", "桜.jpg"),
        ("file:///p/..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("file:///p/a%0d%0aSet-Cookie:x%22.jpg", "a__Set-Cookie_x_.jpg"),
        ("file:///p/photo%E2%80%AEgpj.exe", "photo_gpj.exe"),
        ("file:///p/%FF.jpg", "\ufffd.jpg"),
        ("file:///p/..", "image"),
        ("file:///p/" + "x" * 300 + ".jpeg", "x" * 195 + ".jpeg"),
    ],
)
def test_the_name_is_one_that_every_system_can_save(uri: str, name: str) -> None:
    assert build_file_name(uri) == name


def test_the_header_is_ascii_and_has_the_whole_name() -> None:
    assert build_content_disposition("a b.jpg") == "attachment; filename=\"a b.jpg\"; filename*=UTF-8''a%20b.jpg"
    header = build_content_disposition("桜 ñ.jpg")
    assert header == "attachment; filename=\"_ _.jpg\"; filename*=UTF-8''%E6%A1%9C%20%C3%B1.jpg"
    header.encode("ascii")


def test_downloads_without_where_they_were_taken(photo_root: Path) -> None:
    roots, path = AllowedRoots.from_folders([photo_root], strips_location=True), photo_root / "lisbon.jpg"
    path.write_bytes(build_camera_photo(xmp=LISBON_XMP.encode()))
    download = open_download(roots, to_file_uri(path), 1_000_000, 10_000)
    assert download is not None
    with download.file as file:
        data = b"".join(download.read_chunks())
        assert len(data) == download.size_bytes == path.stat().st_size
    assert file.closed
    assert b"GPSLatitude" not in data
    with Image.open(io.BytesIO(data)) as image:
        assert dict(image.getexif().get_ifd(0x8825)) == {}
        assert image.getexif()[0x0110] == "Canon EOS 80D"
    plain = open_download(roots, to_file_uri(photo_root / "red.png"), 10_000, 1000)
    assert plain is not None
    assert plain.file.read() == (photo_root / "red.png").read_bytes()
    plain.file.close()


def test_what_keeps_its_location_is_not_sent(photo_root: Path) -> None:
    roots, uri = AllowedRoots.from_folders([photo_root], strips_location=True), to_file_uri(photo_root / "lease.pdf")
    with pytest.raises(RequestRejected) as caught:
        open_download(roots, f"{uri}#page=1", 10_000, 4_200_000)
    assert (caught.value.response.status, caught.value.response.code) == (403, "location-not-removable")
