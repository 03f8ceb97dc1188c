"""`stair-es dashboards export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stair_es.config import DEFAULT_INDEX
from stair_es.errors import UsageError

from . import options
from .dashboards_options import ProductOption, TimeFieldOption, WordsIndex, looked, product_of
from .output import note, plain

Output = Annotated[str, typer.Option("--output", "-o", help="The file (NAME.ndjson), or - for stdout.")]


def export(
    output: Output,
    index: options.Index = DEFAULT_INDEX,
    product: ProductOption = "auto",
    words_index: WordsIndex = None,
    time_field: TimeFieldOption = None,
    url: options.Url = None,
) -> None:
    """Write the dashboard as a file that the product imports (Stack Management, Saved Objects, Import).

    Looks at the index, so that no panel is written that can't have data. It needs no cluster if you say what it would find.

    **Examples**

    - `stair-es dashboards export --index photos -o photos.ndjson`

    - `stair-es dashboards export --index photos --product kibana --words-index -o - | gzip > photos.ndjson.gz`

    **Exit code**: 0 written, 1 failed (nothing is written), 2 wrong usage.
    """
    from stair_es.dashboards.bundle import bundle
    from stair_es.dashboards.objects import ndjson

    if output != "-" and not output.lower().endswith(".ndjson"):
        raise UsageError(
            f"--output {output}: the products import files called .ndjson only",
            f"Call it {Path(output).with_suffix('.ndjson') if Path(output).name else 'photos.ndjson'}",
        )
    corpus, distribution = looked(index, url, words_index=words_index, time_field=time_field)
    wanted = product_of(product, distribution)
    objects = bundle(corpus, wanted)
    text = ndjson(objects)
    if output == "-":
        plain(text.rstrip("\n"))
        return
    Path(output).write_text(text, encoding="utf-8")
    note(f"{len(objects)} objects for {wanted} written to {output}")
