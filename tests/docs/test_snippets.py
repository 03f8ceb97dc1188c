"""Every command and snippet of the README and of docs/ is run, as far as this machine can.

A page is a test: one home, one shell, one empty cluster, its blocks from top to bottom (tests/support/snippets/runner.py).
Below is all that is not run, and why. `make test` runs the pages in FIRST_PAGES, and checks the others without running them.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.snippets.checks import InvalidSnippet
from support.snippets.fixtures import PageEnvironment, build_environment, create_files, create_home
from support.snippets.pages import parse_blocks, parse_commands
from support.snippets.runner import PageRun, Rules, check_page, is_skipped
from support.snippets.shell import Shell

ROOT = Path(__file__).parents[2]
_STAIR_ES = Path(sys.executable).with_name("stair-es")

_PIP = "python -m pip install -q --no-index --no-deps --no-build-isolation"

RULES = Rules(
    not_run={
        "pre-commit": "the clone's hooks aren't changed",
        "pip install": "the environment of the tests isn't changed: the extras are looked up in setup.cfg",
        "docker": "no docker here: our command lines in it are parsed",
        "kubectl": "no Kubernetes here: our command lines in it are parsed",
        "helm": "no Kubernetes here",
        "aws": "no AWS here",
        "git": "the network isn't asked",
        "apt": "the machine isn't changed",
        "sudo": "the machine isn't changed",
        "systemctl": "no systemd here",
        "crontab": "the machine isn't changed",
        "make": "the tests of the tests would run themselves: make -n looks for the target",
        ".venv/bin/pytest": "the tests of the tests would run themselves",
        "python benchmarks/": "they take minutes to hours: their own parser reads the arguments",
        "python scripts/": "they take minutes to hours: their own parser reads the arguments",
        "python examples/ray/": "tests/e2e/test_examples.py runs it on Ray: its own parser reads the arguments",
        "python examples/frameworks/haystack_tei.py": "sparse_vector, which the embedded node lacks: tests/integration",
        "stair-es ingest examples/photos/captions.jsonl --image-column file --index photos --vector sparse_vector": "the same",
        "ray job submit": "a Ray cluster of several machines: the command line in it is parsed",
        "stair-es ingest s3://bucket/products/ --index products --ray-address": "a Ray cluster of several machines",
        "stair-es ingest shards/{0000..0127}.tar --runner ray": "128 shards are many for two cores; docs/ray.md runs on Ray",
        "stair-es evaluate retrieval dataset_": "COCO and Flickr30k, which nobody bundles",
        "stair-es train grounded.toml": "2,000 steps; docs/howto/train-your-own.md trains",
        "stair-es ingest photos --model models/mine": "the model that was not trained",
        "stair-es search --model models/mine": "the model that was not trained",
        "stair-es ingest ~/Pictures --index photos --model siglip2": "gigabytes of the Hugging Face hub: tests/hub",
        "stair-es search a girl with an umbrella": "the index of the line before",
        "stair-es ingest pages --index reports --model pages": "a gigabyte of the Hugging Face hub, and its code: tests/hub",
        "stair-es search records office": "the index of the line before",
        "stair-es distill openai/": "a published CLIP of the Hugging Face hub: tests/hub",
        "stair-es evaluate retrieval captions.jsonl --model models/clip-words": "the model of the line before",
        "stair-es ingest ~/Pictures --index photos --model models/clip-words": "the model of the lines before",
        ".venv/bin/stair-es": "where `make demo` has installed it",
        "curl -sS $CLUSTER/": "no node has ml-commons or an inference service: tests/integration/test_connectors.py",
    },
    replacements={
        "pip install ./examples/plugin": f"{_PIP} --target ~/.plugins ./examples/plugin",
        "pip install -e .": f"{_PIP} --target ~/.plugins .",
        "stair-es encoder": "stair-es encoder --port 0",  # the port may be in use
    },
    background={"stair-es serve": r"^http://", "stair-es encoder": r"^http://", "stair-es node logs -f": ""},
    not_sent={
        "/_security/": "Elasticsearch's security, which the embedded node is without",
        "/_plugins/_security/": "OpenSearch's security plugin, which the embedded node is without",
    },
    languages={
        "text": "just shown",
        "mermaid": "a picture",
        "js": "a file that node runs in the console",
        "java": "a file that java runs in the console",
    },
)

PARSED_ONLY = {
    "CONTRIBUTING.md": 21,
    "README.md": 4,
    "docs/connection.md": 1,
    "docs/dashboards.md": 2,
    "docs/distill.md": 10,
    "docs/encoder.md": 1,
    "docs/howto/application-search.md": 1,
    "docs/howto/aws.md": 1,
    "docs/howto/docker.md": 11,
    "docs/howto/gpu-ray.md": 2,
    "docs/howto/haystack.md": 4,
    "docs/howto/kubernetes.md": 16,
    "docs/howto/langchain.md": 1,
    "docs/howto/llamaindex.md": 1,
    "docs/howto/s3-corpus.md": 1,
    "docs/howto/text-in-cluster.md": 15,
    "docs/howto/train-your-own.md": 1,
    "docs/howto/words-and-text.md": 1,
    "docs/howto/your-application.md": 2,
    "docs/ingest.md": 1,
    "docs/models.md": 5,
    "docs/observe.md": 1,
    "docs/query-speed.md": 3,
    "docs/ray.md": 3,
    "docs/reference/recipes.md": 4,
    "docs/serve.md": 1,
    "docs/stair-mini.md": 5,
    "docs/start.md": 3,
    "docs/training.md": 4,
    "examples/ray/README.md": 2,
    "examples/space/README.md": 1,
}
"""Page -> how many of its commands fall under `not_run`. Written down so that no page hides there unseen."""

FIRST_PAGES = {"README.md", "docs/start.md", "docs/howto/your-application.md"}
"""Where readers begin."""

ON_OWN_NODE = {"docs/howto/haystack.md"}
"""Pages whose readers have no cluster: without `STAIR_ES_URL`, the first command starts the embedded node of an empty home.

Those of the other frameworks begin with the same command. What it starts isn't about them.
"""

PAGES = sorted(
    [
        *(
            page
            for name in ("README.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "MAINTAINERS.md", "ROADMAP.md", "SECURITY.md")
            if (page := ROOT / name).is_file()
        ),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").rglob("README.md"),
    ]
)


def _get_page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


_SNIPPETS = [page for page in PAGES if any(True for _ in parse_blocks(page.read_text(encoding="utf-8")))]


def _run_page(page: Path, environment: PageEnvironment, folder: Path) -> None:
    text = page.read_text(encoding="utf-8")
    logs, user = folder / "logs", folder / "anna"
    for each in (logs, user):
        each.mkdir()
    clone = create_home(user, text)
    create_files(clone, text)
    variables = build_environment(environment, user)
    if _get_page_name(page) in ON_OWN_NODE:
        del variables["STAIR_ES_URL"]
    try:
        environment.clear()
        with Shell(clone, logs, variables) as shell:
            node_url, places = environment.node_url, environment.places
            PageRun(_get_page_name(page), RULES, shell, clone, node_url, places, environment.python).run(text)
    finally:
        if _get_page_name(page) in ON_OWN_NODE:
            subprocess.run([_STAIR_ES, "node", "down"], env=variables, capture_output=True, check=True)


def _build_parameter(page: Path) -> Any:  # noqa: ANN401  a private class of pytest
    name = _get_page_name(page)
    return pytest.param(page, id=name, marks=[] if name in FIRST_PAGES else [pytest.mark.nightly("what a page shows")])


@pytest.mark.parametrize("page", [_build_parameter(page) for page in _SNIPPETS])
def test_snippets_of_each_page_work(page: Path, page_environment: PageEnvironment, tmp_path: Path) -> None:
    try:
        _run_page(page, page_environment, tmp_path)
    except InvalidSnippet as error:
        pytest.fail(str(error), pytrace=False)


@pytest.mark.parametrize("page", _SNIPPETS, ids=_get_page_name)
def test_snippets_of_each_page_are_valid(page: Path) -> None:
    check_page(_get_page_name(page), page.read_text(encoding="utf-8"))


def test_snippets_that_are_only_parsed_are_listed() -> None:
    counted: Counter[str] = Counter()
    for page in _SNIPPETS:
        for block in parse_blocks(page.read_text(encoding="utf-8")):
            if block.language == "console":
                counted[_get_page_name(page)] += sum(is_skipped(command.text, RULES) for command in parse_commands(block))
    now = {page: number for page, number in counted.items() if number}
    assert now == PARSED_ONLY, "Change PARSED_ONLY if these commands really can't be run here"
