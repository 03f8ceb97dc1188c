"""Build a small set of captioned images from packages: emoji by vendor, clip art and stamps, split by concept and by style.

    python benchmarks/small_sets/build.py                                  # into $STAIR_ES_HOME/sets
    python benchmarks/small_sets/build.py --out SETS --downloads PACKAGES   # keeps the packages for the next build

Requires npm, apt-get and dpkg-deb (or the packages in --downloads) and resvg-py. Writes OUT/images/SOURCE/..., a JSON Lines file
for each split, and OUT/sets.json with counts, versions, licenses and the SHA-256 of each file. README.md in this folder describes
the sets.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Build the sets and print their counts."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from small_sets.command import build_sets, format_summary

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the folder to write (default: sets in STAIR_ES_HOME)")
    parser.add_argument("--downloads", type=Path, help="cache of package files (default: a temporary folder)")
    args = parser.parse_args()
    print(format_summary(build_sets(args.out, args.downloads)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
