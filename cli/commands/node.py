"""`stair-es node`: the embedded search node."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from ..options import config_file
from ..options.decorator import prepare_command
from ..options.shared import JsonOption
from ..output.console import emit_json, print_notice, stdout

EXIT_NOT_RUNNING = 3
"""Exit code of `node status` without a running node, as for init scripts."""

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Manage the embedded search node, a real OpenSearch for this machine only.

**Examples**

```text
stair-es node up
stair-es node status
stair-es node down
```

Other commands use the node if neither `--url` nor `STAIR_ES_URL` is set. The node listens on 127.0.0.1 only. Its data is in the
folder `STAIR_ES_HOME` and is kept when the node stops.""",
)


@app.command(name="up")
@prepare_command
def start_node_command(
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            metavar="PORT",
            min=0,
            max=65535,
            help="HTTP port to listen on; 0 picks a free port. [env var: STAIR_ES_NODE_PORT]"
            " [default: a random port, chosen once]",
        ),
    ] = None,
    heap: Annotated[
        str | None,
        typer.Option(
            "--heap",
            metavar="SIZE",
            help="Size of the Java heap, such as 512m or 2g. [env var: STAIR_ES_NODE_HEAP] [default: 512m]",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Start the node if it isn't running, and print its URL.

    **Examples**

    ```text
    stair-es node up
    stair-es node up --port 0 --heap 1g
    curl "$(stair-es node up)/_cat/indices?v"
    ```

    The first start downloads OpenSearch (75 MB) and verifies each file against a pinned SHA-256 checksum. Later starts work
    offline. The URL is the last line on stdout; everything else goes to stderr.
    """
    from stair_es.embedded_node import NodeSpec, get_node_status, start_node
    from stair_es.errors import NodeError

    from ..output.progress import show_download_progress

    spec = NodeSpec.from_home(port=port, heap=heap, environ=config_file.get_config().environ)
    with show_download_progress() as progress:
        url = start_node(spec, progress)
    if port and not url.endswith(f":{port}"):
        raise NodeError(
            f"the embedded node is already running at {url}, not on port {port}",
            "Use that URL, or stop it first with: stair-es node down",
            code="node-on-other-port",
        )
    if as_json:
        emit_json(asdict(get_node_status(spec)))
    else:
        stdout.print(url, markup=False)


@app.command(name="down")
@prepare_command
def stop_node_command() -> None:
    """Stop the node, and wait until it has exited.

    **Example**

    ```text
    stair-es node down
    ```

    The data of the node is kept.
    """
    from stair_es.embedded_node import NodeSpec, stop_node

    spec = NodeSpec.from_home(environ=config_file.get_config().environ)
    print_notice("the embedded node is stopped" if stop_node(spec) else "the embedded node was not running")


@app.command(name="status")
@prepare_command
def show_node_status_command(as_json: JsonOption = False) -> None:
    """Print whether the node is running, and its URL.

    **Examples**

    ```text
    stair-es node status
    stair-es node status --json
    ```

    **Exit codes**: 0 if the node is running and responds; 3 otherwise.
    """
    from stair_es.embedded_node import NodeSpec, get_node_status

    spec = NodeSpec.from_home(environ=config_file.get_config().environ)
    status = get_node_status(spec)
    facts = {**asdict(status), "data": str(spec.data), "log": str(spec.log_file)}
    if as_json:
        emit_json(facts)
    else:
        for name, value in facts.items():
            if value is not None:
                stdout.print(f"{name:<11}{value}", markup=False)
    if status.state != "running":
        raise typer.Exit(EXIT_NOT_RUNNING)


@app.command(name="logs")
@prepare_command
def print_node_logs_command(
    lines: Annotated[int, typer.Option("--lines", "-n", metavar="N", min=1, help="Number of lines to print.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new lines until you press Ctrl-C.")] = False,
) -> None:
    """Print the last lines of the node's log.

    **Examples**

    ```text
    stair-es node logs -n 200
    stair-es node logs --follow
    ```
    """
    from stair_es.embedded_node import NodeSpec, logs

    log_file = NodeSpec.from_home(environ=config_file.get_config().environ).log_file
    if not log_file.exists():
        print_notice(f"there is no log yet: {log_file}")
    for line in logs.follow_log(log_file, lines) if follow else logs.read_log_tail(log_file, lines):
        typer.echo(line)
