"""Try the wheel in empty environments: with the lowest dependencies that setup.cfg promises, and with the newest.

::

    python scripts/dist_installs.py dist                              # lowest and newest on this Python
    python scripts/dist_installs.py dist --resolution lowest-direct --python ~/.pyenv/versions/3.11.13/bin/python
    python scripts/dist_installs.py dist --extras node,serve,torch --unit

In each: `pip check`, the version, the help of every command, then the main job against `STAIR_ES_URL` (default: the embedded
node): encode, ingest, search by text and by image, words; with `--unit` also tests/unit of this tree against the wheel.
Only wheels are installed: the lowest version is the lowest one with a wheel for that Python. Downloads go through uv's cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path

from dist_files import ROOT, find_archives
from packaging.requirements import Requirement

from stair_es.config.defaults import DataDir

EXTRAS = "encoder,node,ray,serve,sources,terminal,aws,metrics,traces"
"""Extras that are tried by default: all for users of the shipped model, without PyTorch (about 3 GB)."""
TREE_TESTS = ("benchmarks", "deploy", "scripts", "support", "test_guards.py", "test_names.py")
"""Folders and files of tests/unit about files that aren't in the wheel."""
PHOTOS = ROOT / "examples" / "photos"
COMMANDS = """
from typer.main import get_command
from stair_es.cli.main import app

def walk(command, path):
    print(*path)
    for name, child in sorted(getattr(command, "commands", {}).items()):
        walk(child, (*path, name))

walk(get_command(app), ())
"""
"""Prints the path of every command, one per line, in an environment whose Typer may differ from ours."""


def read_metadata(wheel: Path) -> Message:
    """Return the METADATA of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def list_direct_requirements(headers: Message, extras: tuple[str, ...]) -> Iterator[str]:
    """Yield the direct requirements of the wheel, because uv takes the lowest versions of direct requirements only."""
    for line in headers.get_all("Requires-Dist", []):
        requirement = Requirement(line)
        if requirement.name == headers["Name"]:  # an extra that consists of others
            if any(requirement.marker is not None and requirement.marker.evaluate({"extra": extra}) for extra in extras):
                yield from list_direct_requirements(headers, tuple(requirement.extras))
        elif requirement.marker is None or "extra" not in str(requirement.marker):
            yield line
        else:
            condition, _, extra = str(requirement.marker).rpartition("extra == ")
            if extra.strip('"') in extras:
                requirement.marker = None
                yield f"{requirement}{' ; ' + condition.removesuffix(' and ') if condition else ''}"


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the wheel in it."""

    home: Path
    pins: Path
    """File with each package and its version, one per line."""

    @classmethod
    def create(cls, home: Path, wheel: Path, *, extras: tuple[str, ...], resolution: str, python: str) -> Environment:
        """Create the environment; `resolution` as in uv, `lowest-direct` or `highest`.

        Raises:
            subprocess.CalledProcessError: If no set of versions fits; uv prints the reason on stderr.
        """
        env = cls(home=home, pins=home.with_suffix(".txt"))
        direct = home.with_suffix(".in")
        direct.write_text("\n".join(sorted(set(list_direct_requirements(read_metadata(wheel), extras)))))
        quiet = ("--quiet", "--no-build", "--no-config")
        run_uv("pip", "compile", *quiet, "--python", python, "--resolution", resolution, "--no-annotate", direct, "-o", env.pins)
        run_uv("venv", "--quiet", "--python", python, home)
        run_uv("pip", "install", *quiet, "--python", env.bin / "python", "-r", env.pins, wheel)
        return env

    @property
    def bin(self) -> Path:
        """Return the folder of its commands."""
        return self.home / "bin"

    def run(self, *command: str | Path) -> str:
        """Run a command of this environment outside the tree, and return its output.

        Raises:
            SystemExit: If the command fails; with its output.
        """
        from uv import find_uv_bin

        variables = {
            "PATH": os.pathsep.join([str(self.bin), str(Path(find_uv_bin()).parent), os.environ["PATH"]]),
            "STAIR_ES_HOME": str(prepare_home(self.home.parent)),
            "COLUMNS": "120",
        }
        result = subprocess.run(
            (self.bin / command[0], *command[1:]),
            cwd=self.home,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            output = result.stdout[-8000:] + result.stderr[-8000:]
            sys.exit(f"{' '.join(map(str, command))}: exit code {result.returncode}\n{output}")
        return result.stdout


def prepare_home(folder: Path) -> Path:
    """Return a new home for the embedded node that shares the downloads of the user's home, but none of its nodes."""
    home, users = folder / "stair-es-home", DataDir.from_env().path
    if not home.exists():
        home.mkdir()
        for name in ("dist", "models"):
            (users / name).mkdir(parents=True, exist_ok=True)
            (home / name).symlink_to(users / name)
    return home


def run_uv(*arguments: str | Path) -> None:
    """Run uv, which prints its messages on stderr."""
    from uv import find_uv_bin

    subprocess.run((find_uv_bin(), *arguments), check=True)


def check_commands(env: Environment, version: str) -> str:
    """Check the installed packages, the version, and the help of every command; return a summary."""
    run_uv("pip", "check", "--quiet", "--python", env.bin / "python")
    output = env.run("stair-es", "--version").strip()
    if output != f"stair-es {version}":
        sys.exit(f"the wheel is {version}, and its command says {output!r}")
    paths = [line.split() for line in env.run("python", "-c", COMMANDS).splitlines()]
    for path in paths:
        if "Usage" not in env.run("stair-es", *path, "--help"):
            sys.exit(f"stair-es {' '.join(path)} --help shows no usage")
    return f"help of {len(paths)} commands"


def check_job(env: Environment) -> str:
    """Check encode, ingest, search by text and by image, and words; return a summary and delete the index."""
    vector = json.loads(env.run("stair-es", "encode", PHOTOS / "giant-panda.jpg", "--json"))
    if "bear" not in vector["tokens"]:
        sys.exit(f"encode finds no bear in the panda: {vector}")
    url = os.environ.get("STAIR_ES_URL") or env.run("stair-es", "node", "up", "--port", "0").splitlines()[-1]
    index = f"dist-check-{uuid.uuid4().hex[:8]}"
    where = ("--url", url, "--index", index)
    try:
        env.run("stair-es", "ingest", PHOTOS, *where)
        for query in (("black and white bear",), ("--image", str(PHOTOS / "giant-panda.jpg"))):
            found = json.loads(env.run("stair-es", "search", *query, *where, "-k", "3", "--json"))
            if not found["hits"][0]["uri"].endswith("giant-panda.jpg"):
                sys.exit(f"search {' '.join(query)}: the panda isn't first: {found}")
        env.run("stair-es", "words", *where, "--json")
    finally:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/{index}-*", method="DELETE"), timeout=60):
            pass
        if "STAIR_ES_URL" not in os.environ:
            env.run("stair-es", "node", "down")
    return "encode, ingest, search, words"


def check_unit(env: Environment, wheel: Path) -> str:
    """Run tests/unit against the wheel, except those about the tree; return a summary. A test that lacks a package is skipped."""
    python = env.bin / "python"
    run_uv("pip", "install", "--quiet", "--python", python, "-c", env.pins, f"stair-es[unit] @ {wheel.resolve().as_uri()}")
    options = ("-q", "--no-header", "-p", "no:cacheprovider", "-o", "filterwarnings=default", f"--rootdir={ROOT}")
    unit = ROOT / "tests" / "unit"
    left_out = [f"--ignore={unit / name}" for name in TREE_TESTS]
    output = env.run("pytest", *options, "-c", ROOT / "pyproject.toml", *left_out, unit)
    return f"{output.splitlines()[-1].strip('= ')}; left out: {', '.join(TREE_TESTS)}"


def main() -> None:
    """Try the wheel with each resolution; the first failure ends the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dist", type=Path)
    parser.add_argument("--extras", default=EXTRAS, help="separated by commas (%(default)s)")
    parser.add_argument("--resolution", action="append", choices=["lowest-direct", "highest"], help="default: both")
    parser.add_argument("--python", default=sys.executable, help="an interpreter (this one)")
    parser.add_argument("--unit", action="store_true", help="run tests/unit, too")
    args = parser.parse_args()
    wheel, _ = find_archives(args.dist)
    extras = tuple(filter(None, args.extras.split(",")))
    for resolution in args.resolution or ["lowest-direct", "highest"]:
        with tempfile.TemporaryDirectory() as folder:
            env = Environment.create(Path(folder, "env"), wheel, extras=extras, resolution=resolution, python=args.python)
            print(f"{env.run('python', '-V').strip()}, {resolution}, extras {','.join(extras) or 'none'}")
            print(f"  {' '.join(line for line in env.pins.read_text().splitlines() if '==' in line)}")
            print(f"  {check_commands(env, read_metadata(wheel)['Version'])}; {check_job(env)}", flush=True)
            if args.unit:
                print(f"  {check_unit(env, wheel)}", flush=True)


if __name__ == "__main__":
    main()
