"""Compare `stair-es encoder` with the bare encoder: texts/s, latency, memory.

    nice python benchmarks/encoder.py                         # stair-mini, both text towers: five minutes
    nice python benchmarks/encoder.py --model models/coco     # your own checkpoint
    nice python benchmarks/encoder.py --seconds 1 --rounds 1 --clients 1 8

The service and its clients run in separate processes on this machine (`encoding/load.py`), so clients use a part of the cores.
The bare encoder runs in this process. It calls `encode_texts` with as many texts as the clients have waiting at once, at most
`BATCH`. For images it includes decoding, as in the service. Bare encoder and service alternate every `--seconds`; the ratio is
the median over the rounds. All texts are different, so no result can be cached.

A client that sends short texts one after the other is also measured beside `FLOOD_CLIENTS` clients, each of which sends `GROUP`
texts of `FLOOD_CHARS` characters at a time: its times are compared with those of the same client alone.

`CPU` is the ratio of CPU time per item, bare encoder to service, without the clients. On a busy machine, only this ratio is
meaningful, because other programs take more time from one process than from two.
"""

from __future__ import annotations

import argparse
import base64
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import TypeAlias, get_args

import numpy as np
import psutil
from encoding.load import Load, Work, send_load, start_clients
from harness.photos import list_photos, read_captions
from harness.program import add_model_option, build_parser, publish_result
from harness.result import Ratio, ReportTable, Result
from harness.server import start_server

from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.types import TextTower

BATCH = 64
GROUP, GROUP_CLIENTS = 32, 2
"""Texts per batch request, which is the default limit of text-embeddings-inference, and the number of its clients."""
FLOOD_CLIENTS, FLOOD_CHARS, FLOOD_ROUNDS = 4, 8000, 3
GOAL, FLOOD_GOAL = 0.8, 2.0
NATIVE, TEI = "/v1/encode", "/embed_sparse"
TEXTS = 50_000
TIMEOUT_S = 120.0  # a busy machine may need longer than the default for the requests of 64 clients
Encode: TypeAlias = Callable[[Sequence[str]], object]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One load, compared with the bare encoder."""

    tower: str
    path: str
    clients: int
    per_request: int
    bare_per_s: list[float]
    """Items/s of the bare encoder, per round."""
    service_per_s: list[float]
    bare_cpu_ms: list[float]
    """CPU time per item, per round."""
    service_cpu_ms: list[float]
    ms: list[float]
    """Latency of each request."""
    client_cpu_ms: float
    """CPU time of the clients per request."""

    @property
    def ratio(self) -> float:
        """Ratio of the service's items/s to the bare encoder's."""
        return statistics.median(ours / bare for bare, ours in zip(self.bare_per_s, self.service_per_s, strict=True))

    @property
    def cpu_ratio(self) -> float:
        """Ratio of the bare encoder's CPU time per item to the service's."""
        return statistics.median(bare / ours for bare, ours in zip(self.bare_cpu_ms, self.service_cpu_ms, strict=True))

    def describe(self) -> str:
        """Return the description of the load, for ratios."""
        several = f", {self.per_request} texts a request" if self.per_request > 1 else ""
        return f"{self.tower}, {self.path}, {self.clients} client{'s' if self.clients > 1 else ''}{several}"


def make_texts(count: int) -> list[str]:
    """Return different texts of 3 to 9 words."""
    rng, words = np.random.default_rng(1), sorted({word for caption in read_captions().values() for word in caption.split()})
    return [f"{' '.join(rng.choice(words, int(rng.integers(2, 9))))} {number}" for number in range(count)]


def measure_bare(encode: Encode, items: Sequence[str], size: int, seconds: float) -> tuple[float, float]:
    """Return the items/s of a loop over groups of items, and the CPU milliseconds of an item."""
    cpu_s, began_s, done = time.process_time(), time.perf_counter(), 0
    while (spent_s := time.perf_counter() - began_s) < seconds:
        first = done % (len(items) - size + 1)
        encode(items[first : first + size])
        done += size
    return done / spent_s, 1000 * (time.process_time() - cpu_s) / done


def measure_load(pool: ProcessPoolExecutor, encode: Encode, work: Work, process: psutil.Process, rounds: int, tower: str) -> Row:
    """Measure bare encoder and service alternately; a first round isn't counted."""
    bares, loads, cpu_ms = list[tuple[float, float]](), list[Load](), []
    for warm in range(rounds + 1):
        bare = measure_bare(encode, work.items, min(BATCH, work.clients * work.per_request), work.seconds)
        before_s = sum(process.cpu_times()[:2])
        load = pool.submit(send_load, work).result()
        spent_s = sum(process.cpu_times()[:2]) - before_s
        if warm:
            bares.append(bare)
            loads.append(load)
            cpu_ms.append(1000 * spent_s / (len(load.ms) * work.per_request))
    row = Row(
        tower=tower,
        path=work.path,
        clients=work.clients,
        per_request=work.per_request,
        bare_per_s=[per_s for per_s, _ in bares],
        service_per_s=[load.items_per_s for load in loads],
        bare_cpu_ms=[ms for _, ms in bares],
        service_cpu_ms=cpu_ms,
        ms=[ms for load in loads for ms in load.ms],
        client_cpu_ms=statistics.median(load.client_cpu_ms for load in loads),
    )
    print(f"{row.describe()}: {row.ratio:.2f} of the bare encoder, CPU {row.cpu_ratio:.2f}", file=sys.stderr, flush=True)
    return row


def measure_tower(
    pool: ProcessPoolExecutor, tower: TextTower, args: argparse.Namespace
) -> tuple[list[Row], tuple[Ratio, ...], dict[str, float]]:
    """Measure a text tower, and images with the full one; return the memory of the service afterwards, in MB."""
    encoder = registry.load_encoder(ModelSpec(name=args.model, text_tower=tower))
    rows, items = [], make_texts(TEXTS)
    flood_ratios: tuple[Ratio, ...] = ()
    options = ("--model", args.model, "--text-tower", tower, "--no-token", "--timeout", str(TIMEOUT_S))
    with start_server("encoder", *options) as (address, server):
        url, process = address.rstrip("/"), psutil.Process(server.pid)
        memory = {"started": process.memory_info().rss / 1e6}
        for clients, per_request in [*((count, 1) for count in args.clients), (GROUP_CLIENTS, GROUP)]:
            for path, field in ((NATIVE, "texts"), (TEI, "inputs")):
                work = Work(
                    url=url,
                    path=path,
                    field=field,
                    items=items,
                    per_request=per_request,
                    clients=clients,
                    seconds=args.seconds,
                )
                rows.append(measure_load(pool, encoder.encode_texts, work, process, args.rounds, f"text, {tower}"))
        memory["after texts"] = process.memory_info().rss / 1e6
        if tower == "full":
            images = [f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}" for path in list_photos()]
            work = Work(url=url, path=NATIVE, field="images", items=images, per_request=1, clients=8, seconds=3 * args.seconds)
            rows.append(measure_load(pool, build_image_loop(encoder), work, process, args.rounds, "image"))
            memory["after images"] = process.memory_info().rss / 1e6
            flood_ratios = build_flood_ratios(measure_beside_flood(pool, url, items, 3 * args.seconds))
    return rows, flood_ratios, memory


def measure_beside_flood(pool: ProcessPoolExecutor, url: str, items: Sequence[str], seconds: float) -> list[tuple[Load, Load]]:
    """Measure a client of short texts alone and beside clients of long ones, in alternating rounds."""
    victim = Work(url=url, path=NATIVE, field="texts", items=items, per_request=1, clients=1, seconds=seconds)
    joined = " ".join(items)
    long_texts = [joined[at : at + FLOOD_CHARS] for at in range(0, 40 * FLOOD_CHARS, FLOOD_CHARS)]
    flood = replace(victim, items=long_texts, per_request=GROUP, clients=FLOOD_CLIENTS)
    rounds = []
    with start_clients() as flood_pool:
        for _ in range(FLOOD_ROUNDS):
            alone = pool.submit(send_load, victim).result()
            flooding = flood_pool.submit(send_load, flood)
            rounds.append((alone, pool.submit(send_load, victim).result()))
            flooding.result()  # its last requests are answered
    return rounds


def build_flood_ratios(rounds: Sequence[tuple[Load, Load]]) -> tuple[Ratio, ...]:
    """Return the ratios of the victim's times beside the flood to those alone: of the medians, and of the largest ones."""

    def compare(summarize: Callable[[Sequence[float]], float]) -> float:
        return statistics.median(summarize(beside.ms) / summarize(alone.ms) for alone, beside in rounds)

    against = f"the same client without {FLOOD_CLIENTS} clients of {GROUP} texts of {FLOOD_CHARS:,} characters"
    return tuple(
        Ratio(
            what=f"short texts beside long ones: {name} time of an answer",
            against=against,
            value=value,
            goal=FLOOD_GOAL,
            at_most=True,
        )
        for name, value in (("median", compare(statistics.median)), ("longest", compare(max)))
    )


def build_image_loop(encoder: Encoder) -> Encode:
    """Return a function that decodes and encodes images given as data URIs."""
    spec, limits = encoder.image_spec, DecodeLimits()

    def encode(uris: Sequence[str]) -> object:
        pixels = [decode_image(base64.b64decode(uri.partition(",")[2]), spec, limits).pixels_HWC for uri in uris]
        return encoder.encode_images(np.stack(pixels))

    return encode


def build_result(rows: Sequence[Row], flood_ratios: Sequence[Ratio], memory: dict[str, dict[str, float]], about: str) -> Result:
    """Return the table, the ratios and the memory."""
    lines = []
    for row in rows:
        p50_ms, p99_ms = np.percentile(row.ms, (50, 99))
        speeds = (f"{statistics.median(values):,.0f}" for values in (row.bare_per_s, row.service_per_s))
        cpu_ms = (f"{statistics.median(values):.2f}" for values in (row.bare_cpu_ms, row.service_cpu_ms))
        ratios, times = (f"{row.ratio:.2f}", f"{row.cpu_ratio:.2f}"), f"{p50_ms:.1f} / {p99_ms:.1f}"
        load = f"{row.clients} x {row.per_request}"
        lines.append((row.tower, row.path, load, *speeds, *cpu_ms, *ratios, times, f"{row.client_cpu_ms:.2f}"))
    cpu = ("bare, CPU ms", "service, CPU ms", "ratio", "CPU")
    head = ("what", "route", "clients x items", "bare/s", "service/s", *cpu, "p50 / p99, ms")
    return Result(
        about=about,
        tables=(ReportTable(head=(*head, "clients, CPU ms"), rows=tuple(lines)),),
        ratios=tuple(
            Ratio(what=f"{what}: {row.describe()}", against="the bare encoder", value=value, goal=GOAL)
            for row in rows
            for what, value in (("items/s", row.ratio), ("items a CPU second", row.cpu_ratio))
        )
        + tuple(flood_ratios),
        remarks=tuple(
            f"Resident memory of the service, text tower {tower}: "
            + ", ".join(f"{value:.0f} MB {when}" for when, value in parts.items())
            for tower, parts in memory.items()
        ),
        figures={"rows": [asdict(row) for row in rows], "memory_mb": memory},
    )


def main() -> None:
    """Run the benchmark, and print its result."""
    parser = build_parser(__doc__)
    add_model_option(parser)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--towers", nargs="+", choices=get_args(TextTower), default=list(get_args(TextTower)))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each load and round (default: %(default)s)")
    args = parser.parse_args()
    rows: list[Row] = []
    flood_ratios: list[Ratio] = []
    memory: dict[str, dict[str, float]] = {}
    with start_clients() as pool:
        for tower in args.towers:
            more, ratios, memory[tower] = measure_tower(pool, tower, args)
            rows += more
            flood_ratios += ratios
    about = f"{args.model}, {args.rounds} rounds of {args.seconds:g} s, load {os.getloadavg()[0]:.1f} at the end"
    publish_result(build_result(rows, flood_ratios, memory, about), args.json)


if __name__ == "__main__":
    main()
