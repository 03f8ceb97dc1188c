"""A console script that starts quickly: its processes are forked from one that has imported the dependencies of `stair-es`.

::

    with start_warm_script(folder) as script:
        subprocess.run([script, "search", "a cat"])

Arguments, environment, working folder, standard streams and exit code are those of the console script, and each process imports
the modules of this project anew. Servers, Ray, training, the embedded node and completion (which asks for the shell that is the
parent) are left to the console script itself.

As a program, `warm_script.py ADDRESS` is the process that is forked.
"""

from __future__ import annotations

import importlib
import marshal
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_IMPORTED = ("typer.main", "rich.table", "rich.progress", "numpy", "PIL.Image", "PIL.JpegImagePlugin", "opensearchpy")
"""What most commands import, reads no environment variable and starts no thread while it is imported (onnxruntime starts one)."""
_SCRIPT = Path(sys.executable).parent / "stair-es"

_CLIENT = """#!/bin/sh
'''exec' {python} -IS "$0" "$@"
' '''
import marshal, os, socket, sys
if {{"serve", "encoder", "node", "train", "ray", "--show-completion", "--install-completion"}} & {{*sys.argv}}:
    os.execv({script!r}, [{script!r}, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"."], [0, 1, 2])
    server.sendall(marshal.dumps((sys.argv[1:], dict(os.environ), os.getcwd())))
    server.shutdown(socket.SHUT_WR)
    code = server.recv(1)
    server.recv(1)  # until the process has ended
sys.exit(code[0] if code else 1)
"""
"""Begins as a script of sh, as pip writes them too: `#!` allows no spaces in the path of the interpreter."""

_connection: socket.socket
"""Of this process to its client, open until it has ended."""


@contextmanager
def start_warm_script(folder: Path) -> Iterator[Path]:
    """Start the process that is forked, and yield a console script in `folder`.

    Raises:
        RuntimeError: If the process ends instead of starting.
    """
    address, client = folder / "warm.sock", folder / "stair-es"
    client.write_text(
        _CLIENT.format(python=shlex.quote(sys.executable), script=str(_SCRIPT), address=str(address)), encoding="utf-8"
    )
    client.chmod(0o700)
    command: list[str | Path] = [sys.executable, __file__, address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdout is None or not process.stdout.readline():
            raise RuntimeError(f"{__file__} ended with {process.wait()}")
        yield client


def _fork_for_each(address: str) -> socket.socket:
    """Fork for each client that connects. Only the forked processes return: with the connection."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print(flush=True)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:  # it ends with the process that started this one
            connection, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                return connection
            connection.close()
    sys.exit()


def _become_client(connection: socket.socket) -> None:
    """Take over what the client has sent."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rb") as request:
        arguments, environment, cwd = marshal.load(request)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout = open(0, encoding="utf-8"), open(1, "w", encoding="utf-8")  # noqa: SIM115  descriptors
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1)  # noqa: SIM115
    sys.argv = [str(_SCRIPT), *arguments]
    sys.path[:1] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))  # the first is the folder of this file
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)


def main() -> None:
    """Run the command in a forked process for each client."""
    for name in _IMPORTED:
        importlib.import_module(name)
    global _connection
    _connection = _fork_for_each(sys.argv[1])
    _become_client(_connection)
    from stair_es.cli.main import main as run

    code = 1
    try:
        run()
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
        raise
    finally:
        _connection.send(bytes([code]))


if __name__ == "__main__":
    main()
