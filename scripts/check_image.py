"""Build the image without a registry or a daemon, and try it.

::

    python scripts/check_image.py                          # as root on Debian or Ubuntu: installs buildah and mmdebstrap
    python scripts/check_image.py --required               # fails where it would skip

mmdebstrap makes a base of Debian's own Python, in place of the official one that the Dockerfile names. buildah builds the target
cpu of the unchanged deploy/Dockerfile on it. Then commands run in the image without a network, its files are looked through, and
it is built again after an edit of one source line. It skips, with a message, where a tool or a package can't be fetched.

The base stays in `$XDG_CACHE_HOME/stair-es/image-check` (`~/.cache/...`), so that the next run needn't make it; the images don't
stay. Health checks, signals, compose and the official base need an engine: .github/workflows/images.yml has one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stair-es" / "image-check"
TOOLS = ("buildah", "mmdebstrap")
SUITE = "bookworm"
BASE_PACKAGES = ("ca-certificates", "netbase", "python-is-python3", "python3", "python3-pip", "tzdata")
MOUNTED = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")
"""This machine's authorities and package index, for the commands of the build only."""
FETCH_FAILED = re.compile(
    r"after connection broken by|Could not fetch URL|Temporary failure (?:in name resolution|resolving)|Unable to connect to"
    r"|ReadTimeoutError|IncompleteRead|HTTP error 5\d\d|Failed to fetch"
)
"""What pip and apt print when a registry can't be reached or fails."""

_FILES = """
import importlib.metadata, importlib.util, json, os, stat
found = {"tools in the environment": [name for name in ("pip", "setuptools", "wheel") if importlib.util.find_spec(name)]}
leftovers = ("/src", "/wheels", "/package", "/root/.cache", "/tmp/.cache")
found["sources and caches"] = [path for path in leftovers if os.path.exists(path)]
writable = found["world-writable"] = []
foreign = found["not root's, or set-uid, below /opt"] = []
for folder, folders, names in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in ("/proc", "/sys", "/dev", "/run")]
    for path in (os.path.join(folder, name) for name in folders + names):
        about = os.lstat(path)
        if not stat.S_ISLNK(about.st_mode) and about.st_mode & stat.S_IWOTH and not about.st_mode & stat.S_ISVTX:
            writable.append(path)
        if path.startswith("/opt/") and (about.st_uid or about.st_mode & (stat.S_ISUID | stat.S_ISGID)):
            foreign.append(path)
own = importlib.metadata.files("stair-es")
print(json.dumps({"own_mb": sum(file.size or 0 for file in own) / 1e6, "found": found}))
"""
"""Runs in the image as root; every list of `found` has to be empty."""


class SkipCheck(Exception):
    """The check can't be made on this machine, at this time."""


@dataclass
class Builder:
    """buildah with a separate storage."""

    storage: Path

    def run(self, *command: str | Path, network: bool = True) -> str:
        """Run a command in a separate mount namespace, which leaves no mounts behind, and return what it prints.

        Raises:
            SkipCheck: If a registry can't be reached.
            subprocess.CalledProcessError: If the command fails for another reason.
        """
        argv = ["unshare", "--mount", *([] if network else ["--net"]), *map(str, command)]
        with subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        ) as process:
            try:
                output, _ = process.communicate()
            except BaseException:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        failed_fetches = [line for line in output.splitlines() if FETCH_FAILED.search(line)]
        if process.returncode and failed_fetches:
            raise SkipCheck(f"packages can't be fetched: {failed_fetches[-1]}")
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, argv, output)
        return output

    def buildah(self, command: str, *arguments: str | Path, network: bool = True) -> str:
        """Run a command of buildah."""
        places = ("--root", self.storage / "root", "--runroot", self.storage / "run")
        return self.run("buildah", *places, command, *arguments, network=network)

    def import_base(self, tar: Path) -> None:
        """Make an image of a root file system."""
        container = self.buildah("from", "scratch").strip()
        self.buildah("add", "--quiet", container, tar, "/")
        self.buildah("commit", "--quiet", container, "localhost/base")
        self.buildah("rm", container)

    def build(self, context: Path, target: str, tag: str, *options: str) -> float:
        """Build a target of the Dockerfile and return the seconds that it took."""
        begun = time.monotonic()
        mounts = [f"--volume={path}:{path}:ro" for path in MOUNTED if Path(path).exists()]
        self.buildah(
            "bud",
            *("--isolation", "chroot", "--network", "host", "--layers", "--format", "docker", *mounts, *options),
            *("--build-arg", "PYTHON=localhost/base", "--file", context / "deploy" / "Dockerfile"),
            *("--target", target, "--tag", tag, context),
        )
        return time.monotonic() - begun

    def run_in(self, image: str, *command: str, user: str = "") -> str:
        """Run a command in a new container of an image, without a network, and return what it prints."""
        container = self.buildah("from", image).strip()
        as_user = ("--user", user) if user else ()
        output = self.buildah("run", "--isolation", "chroot", *as_user, container, "--", *command, network=False)
        self.buildah("rm", container)
        return output

    def list_layers(self, image: str) -> list[str]:
        """Return the digests of the layers of an image, from the base up."""
        return list(json.loads(self.buildah("inspect", "--type", "image", image))["OCIv1"]["rootfs"]["diff_ids"])


def _last_lines(output: str, count: int) -> str:
    return "\n".join(output.strip().splitlines()[-count:])


def install_tools() -> None:
    """Install what is missing; raise SkipCheck if that isn't possible."""
    if os.geteuid() != 0:
        raise SkipCheck("it needs root")
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise SkipCheck(f"{' and '.join(missing)} can only be installed on Debian and Ubuntu")
    install = ("apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *missing, "debian-archive-keyring")
    for command in (("apt-get", "update", "--quiet"), install):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            raise SkipCheck(f"{' and '.join(missing)} can't be installed: {_last_lines(done.stdout, 3)}")


def make_base(builder: Builder) -> None:
    """Make the base and import it; raise SkipCheck if that isn't possible: nothing of it is the project's."""
    recipe = hashlib.sha256(" ".join((SUITE, *BASE_PACKAGES)).encode()).hexdigest()[:12]
    tar = CACHE / f"base-{SUITE}-{recipe}.tar"
    options = ("--quiet", "--variant=minbase", "--dpkgopt=force-unsafe-io", f"--include={','.join(BASE_PACKAGES)}")
    try:
        if not tar.exists():
            part = builder.storage / "base.tar"
            builder.run("mmdebstrap", *options, SUITE, part)
            part.rename(tar)
        builder.import_base(tar)
    except subprocess.CalledProcessError as error:
        raise SkipCheck(f"the base can't be made: {_last_lines(error.output, 3)}") from None


def copy_context(target: Path) -> Path:
    """Copy what .dockerignore lets in, and what buildah reads besides."""
    for name in (line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")):
        at, to = ROOT / name, target / name
        to.parent.mkdir(parents=True, exist_ok=True)
        if at.is_dir():
            shutil.copytree(at, to, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(at, to)
    shutil.copy(ROOT / "deploy" / "Dockerfile", target / "deploy")
    shutil.copy(ROOT / ".dockerignore", target)
    return target


def check_image(builder: Builder, image: str) -> float:
    """Check configuration, files and commands of an image, and return the MB of its own layer; raises AssertionError."""
    config = json.loads(builder.buildah("inspect", "--type", "image", image))["OCIv1"]["config"]
    assert (config["User"], config["Entrypoint"]) == ("1000:1000", ["stair-es"]), config
    files = json.loads(builder.run_in(image, "python", "-c", _FILES, user="0:0"))
    unwanted = {kind: paths[:10] for kind, paths in files["found"].items() if paths}
    assert not unwanted, f"the image has {unwanted}"
    version = builder.run_in(image, "stair-es", "--version").strip()
    written = re.search(r'__version__ = "(.+)"', (ROOT / "stair_es" / "_version.py").read_text())
    assert written is not None
    assert version.endswith(written[1]), version
    doctor = builder.run_in(image, "sh", "-c", "stair-es doctor || true")  # it misses a cluster, and nothing else
    assert re.findall(r"^fail +(\w+)", doctor, re.MULTILINE) == ["node"], doctor
    for user in ("", "123456:0"):
        command = "test -w /tmp && test -w /var/lib/stair-es && exec stair-es query 'a cup of coffee'"
        query = builder.run_in(image, "sh", "-c", command, user=user)
        assert '"tokens.coffee"' in query, query
    print(f"tried without a network: {version}, doctor, query as user 1000 and as any user of group 0; files and user are right")
    return float(files["own_mb"])


def check_rebuilds(builder: Builder, image: str, own_mb: float) -> None:
    """Check that one tree gives one wheel, and that an edit of the code changes one layer; raises AssertionError."""
    context = copy_context(builder.storage / "context")
    builder.build(ROOT, "wheel", "wheel")
    builder.build(context, "wheel", "wheel-again", "--no-cache")
    once, again = (builder.run_in(name, "sh", "-c", "sha256sum /wheels/*") for name in ("wheel", "wheel-again"))
    assert once == again, f"the same tree gave two wheels: {once}, {again}"
    with (context / "stair_es" / "__init__.py").open("a") as file:
        file.write("\n# edited\n")
    took_s = builder.build(context, "cpu", "edited")
    before, after = builder.list_layers(image), builder.list_layers("edited")
    assert before[:-1] == after[:-1], "an edit of the code changed layers of packages"
    assert before[-1] != after[-1], "the edit isn't in the image"
    print(f"built again: the same wheel; after an edit of one line in {took_s:.0f} s, one layer of {own_mb:.0f} MB is new")


def check_all() -> None:
    """Build the image and check it."""
    install_tools()
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="storage-", ignore_cleanup_errors=True) as storage:
        builder = Builder(Path(storage))
        begun = time.monotonic()
        make_base(builder)
        print(f"base: {time.monotonic() - begun:.0f} s", flush=True)
        print(f"built: target cpu in {builder.build(ROOT, 'cpu', 'stair-es'):.0f} s", flush=True)
        own_mb = check_image(builder, "stair-es")
        check_rebuilds(builder, "stair-es", own_mb)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Build the image without a registry or a daemon, and try it.")
    parser.add_argument("--required", action="store_true", help="fail where the check would be skipped")
    return parser.parse_args(arguments)


def _end(*_: object) -> NoReturn:
    raise SystemExit(143)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check and return the exit code."""
    options = _parse(arguments)
    try:
        check_all()
    except SkipCheck as skipped:
        print(f"image-check: {'failed' if options.required else 'skipped'}: {skipped}", file=sys.stderr)
        return 1 if options.required else 0
    except subprocess.CalledProcessError as error:
        print(f"{_last_lines(error.output, 40)}\nimage-check: failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return 1
    except AssertionError as error:
        print(f"image-check: failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)  # so that the storage is removed
    sys.exit(main())
