"""Try the wheel in empty environments: with the lowest dependencies that setup.cfg promises, and with the newest.

::

    python scripts/dist_installs.py dist                              # lowest and newest on this Python
    python scripts/dist_installs.py dist --resolution lowest-direct --python ~/.pyenv/versions/3.10.13/bin/python
    python scripts/dist_installs.py dist --extras node,serve,torch --unit

In each: `pip check`, the version, the help of every command, then the main job against `STAIR_ES_URL` (without it the embedded
node): encode, ingest, search by words and by picture, words; with `--unit` also tests/unit of this tree, against the wheel.
Packages come as wheels only: the lowest version is the lowest that has one for that Python. Downloads go through uv's cache.
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

from dist_files import ROOT, find_wheel_and_sdist
from packaging.requirements import Requirement
from uv import find_uv_bin

from stair_es.config.defaults import DataDir

EXTRAS = "node,ray,serve,sources,terminal,aws,metrics,traces"
"""What is tried unless other extras are named: all that a user of the model that ships needs; without PyTorch (about 3 GB)."""
TEST_TOOLS = (
    *("build", "check-jsonschema", "moto[server]", "pytest", "pytrec-eval-terrier"),
    *("pyyaml", "scikit-learn", "setuptools", "trustme"),
)
HEAVY = {"torch": "torch", "tiny_": "torch", "training": "torch", "dedup": "imagehash", "telemetry": "opentelemetry-sdk"}
"""What a test says that needs a package -> the package."""
ABOUT_THE_TREE = ("benchmarks", "deploy", "scripts", "support", "test_guards.py", "test_names.py")
"""Folders and files of tests/unit about what no wheel has."""
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
"""Prints the path of every command, one a line, in an environment whose Typer may be another than ours."""


def read_metadata(wheel: Path) -> Message:
    """Return the metadata of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def list_direct_requirements(wheel_metadata: Message, extras: tuple[str, ...]) -> Iterator[str]:
    """Yield the direct requirements of the wheel: uv selects the lowest versions only for direct ones."""
    for line in wheel_metadata.get_all("Requires-Dist", []):
        requirement = Requirement(line)
        if requirement.name == wheel_metadata["Name"]:  # an extra that is made of others
            if any(requirement.marker is not None and requirement.marker.evaluate({"extra": extra}) for extra in extras):
                yield from list_direct_requirements(wheel_metadata, tuple(requirement.extras))
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
    """Each package with its version, one a line."""

    @classmethod
    def make(cls, home: Path, wheel: Path, *, extras: tuple[str, ...], resolution: str, python: str) -> Environment:
        """Resolve and install the wheel; `resolution` as in uv, `lowest-direct` or `highest`.

        Raises:
            subprocess.CalledProcessError: If no set of versions fits; uv prints why to stderr.
        """
        made = cls(home=home, pins=home.with_suffix(".txt"))
        requirements_in = home.with_suffix(".in")
        requirements_in.write_text("\n".join(sorted(set(list_direct_requirements(read_metadata(wheel), extras)))))
        quiet = ("--quiet", "--no-build", "--no-config")
        resolver = ("--python", python, "--resolution", resolution)
        run_uv("pip", "compile", *quiet, *resolver, "--no-annotate", requirements_in, "-o", made.pins)
        run_uv("venv", "--quiet", "--python", python, home)
        run_uv("pip", "install", *quiet, "--python", made.bin / "python", "-r", made.pins, wheel)
        return made

    @property
    def bin(self) -> Path:
        """Folder of its commands."""
        return self.home / "bin"

    def run(self, *command: str | Path) -> str:
        """Run a command of this environment outside the tree, and return its output.

        Raises:
            SystemExit: If it failed; with its output.
        """
        own = {
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "STAIR_ES_HOME": str(make_home(self.home.parent)),
            "COLUMNS": "120",
        }
        done = subprocess.run(
            (self.bin / command[0], *command[1:]),
            cwd=self.home,
            env={**os.environ, **own},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = done.stdout[-8000:] + done.stderr[-8000:]
            sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{said}")
        return done.stdout


def make_home(folder: Path) -> Path:
    """Make a home for the embedded node, so that no node of the user is touched; fetched files are shared."""
    home, users = folder / "stair-es-home", DataDir.from_env().path
    if not home.exists():
        home.mkdir()
        for name in ("dist", "models"):
            (users / name).mkdir(parents=True, exist_ok=True)
            (home / name).symlink_to(users / name)
    return home


def run_uv(*arguments: str | Path) -> None:
    """Run uv. Its messages go to stderr."""
    subprocess.run((find_uv_bin(), *arguments), check=True)


def check_commands(env: Environment, version: str) -> str:
    """Run `pip check`, and check the version and the help of every command."""
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
    """Encode, ingest, search by words and by picture, and list the words; delete the index afterwards."""
    panda = json.loads(env.run("stair-es", "encode", PHOTOS / "giant-panda.jpg", "--json"))
    if "bear" not in panda["tokens"]:
        sys.exit(f"encode reads no bear in the panda: {panda}")
    url = os.environ.get("STAIR_ES_URL") or env.run("stair-es", "node", "up", "--port", "0").splitlines()[-1]
    index = f"dist-check-{uuid.uuid4().hex[:8]}"
    where = ("--url", url, "--index", index)
    try:
        env.run("stair-es", "ingest", PHOTOS, *where)
        for question in (("black and white bear",), ("--image", str(PHOTOS / "giant-panda.jpg"))):
            found = json.loads(env.run("stair-es", "search", *question, *where, "-k", "3", "--json"))
            if not found["hits"][0]["uri"].endswith("giant-panda.jpg"):
                sys.exit(f"search {' '.join(question)}: the panda isn't first: {found}")
        env.run("stair-es", "words", *where, "--json")
    finally:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/{index}-*", method="DELETE"), timeout=60):
            pass
        if "STAIR_ES_URL" not in os.environ:
            env.run("stair-es", "node", "down")
    return "encode, ingest, search, words"


def check_unit(env: Environment) -> str:
    """Run those of tests/unit against the wheel whose packages are installed."""
    run_uv("pip", "install", "--quiet", "--python", env.bin / "python", "-c", env.pins, *TEST_TOOLS)
    options = ("-q", "--no-header", "-p", "no:cacheprovider", "-o", "filterwarnings=default", f"--rootdir={ROOT}")
    left_out = [f"--ignore={path}" for path in list_unfit_tests(env)]
    output = env.run("pytest", *options, "-c", ROOT / "pyproject.toml", *left_out, ROOT / "tests" / "unit")
    return f"{output.splitlines()[-1].strip('= ')}; left out: {len(left_out)} files of tests/unit"


def list_unfit_tests(env: Environment) -> list[Path]:
    """Return the files of tests/unit that test the tree itself, or need packages that aren't installed."""
    pins = env.pins.read_text()
    words = [word for word, package in HEAVY.items() if f"\n{package}==" not in pins]
    unit = ROOT / "tests" / "unit"
    about_tree = [path for path in unit.rglob("test_*.py") if path.relative_to(unit).parts[0] in ABOUT_THE_TREE]
    lacking = [path for path in unit.rglob("test_*.py") if any(word in path.read_text() for word in words)]
    return sorted({*about_tree, *lacking})


def main() -> None:
    """Try the wheel in each environment, until the first failure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dist", type=Path)
    parser.add_argument("--extras", default=EXTRAS, help="separated by commas (%(default)s)")
    parser.add_argument("--resolution", action="append", choices=["lowest-direct", "highest"], help="default: both")
    parser.add_argument("--python", default=sys.executable, help="an interpreter (this one)")
    parser.add_argument("--unit", action="store_true", help="run tests/unit, too")
    args = parser.parse_args()
    wheel, _ = find_wheel_and_sdist(args.dist)
    extras = tuple(filter(None, args.extras.split(",")))
    for resolution in args.resolution or ["lowest-direct", "highest"]:
        with tempfile.TemporaryDirectory() as folder:
            env = Environment.make(Path(folder, "env"), wheel, extras=extras, resolution=resolution, python=args.python)
            print(f"{env.run('python', '-V').strip()}, {resolution}, extras {','.join(extras) or 'none'}")
            print(f"  {' '.join(line for line in env.pins.read_text().splitlines() if '==' in line)}")
            print(f"  {check_commands(env, read_metadata(wheel)['Version'])}; {check_job(env)}", flush=True)
            if args.unit:
                print(f"  {check_unit(env)}", flush=True)


if __name__ == "__main__":
    main()
