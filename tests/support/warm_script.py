"""A console script and a `python` that start quickly, forked from a process that has imported the dependencies of `stair-es`.

::

    with start_warm_script(folder) as script:
        subprocess.run([script, "search", "a cat"])
        subprocess.run([script.with_name("python"), "search.py"])

Arguments, environment, working folder, standard streams and exit code are those of the console script and of the interpreter, and
each process imports the modules of this project anew. Servers, Ray, training, the embedded node, completion (which asks for the
shell that is the parent) and modules (`python -m`) are left to the real ones.

As a program, `warm_script.py ADDRESS [MODULE...]` is the process that is forked.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import marshal
import os
import runpy
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
_PROGRAMS = Path(sys.executable).parent

_CLIENT = """#!/bin/sh
'''exec' {python} -IS "$0" "$@"
' '''
import marshal, os, socket, sys
sys.argv[0] = os.path.join({programs!r}, os.path.basename(sys.argv[0]))
if {{"serve", "encoder", "node", "train", "ray", "--show-completion", "--install-completion", "-m"}} & {{*sys.argv}}:
    os.execv(sys.argv[0], sys.argv)
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"."], [0, 1, 2])
    server.sendall(marshal.dumps((sys.argv, dict(os.environ), os.getcwd())))
    server.shutdown(socket.SHUT_WR)
    code = server.recv(1)
    server.recv(1)  # until the process has ended
sys.exit(code[0] if code else 1)
"""
"""Begins as a script of sh, as pip writes them too: `#!` allows no spaces in the path of the interpreter."""

_connection: socket.socket
"""Of this process to its client, open until it has ended."""


@contextmanager
def start_warm_script(folder: Path, *modules: str) -> Iterator[Path]:
    """Start the process that is forked, and yield a console script in `folder`; `python` is next to it.

    Args:
        folder: Where to write them.
        modules: What is imported in addition to the dependencies that most commands import.

    Raises:
        RuntimeError: If the process ends instead of starting.
    """
    address, script = folder / "warm.sock", folder / "stair-es"
    client = _CLIENT.format(python=shlex.quote(sys.executable), programs=str(_PROGRAMS), address=str(address))
    for program in (script, folder / "python"):
        program.write_text(client, encoding="utf-8")
        program.chmod(0o700)
    command: list[str | Path] = [sys.executable, __file__, address, *modules]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdout is None or not process.stdout.readline():
            raise RuntimeError(f"{__file__} ended with {process.wait()}")
        yield script


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
        sys.argv, environment, cwd = marshal.load(request)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout = open(0, encoding="utf-8"), open(1, "w", encoding="utf-8")  # noqa: SIM115  descriptors
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1)  # noqa: SIM115
    sys.path[:1] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))  # the first is the folder of this file
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)


def _run_python(arguments: list[str]) -> None:
    """Run `-c CODE` or a file, as the interpreter does."""
    code = arguments.pop(1) if arguments[0] == "-c" else ""
    sys.path.insert(0, str(Path(arguments[0]).resolve().parent) if not code else "")
    sys.argv = arguments
    if code:
        exec(code, {"__name__": "__main__"})
    else:
        runpy.run_path(arguments[0], run_name="__main__")


def _run_program() -> None:
    if Path(sys.argv[0]).name == "python":
        _run_python(sys.argv[1:])
    else:
        from stair_es.cli.main import main as run_command

        run_command()


def _end_process() -> None:
    """End without freeing all that was imported; the client has the exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def main() -> None:
    """Run the program in a forked process for each client."""
    address, *modules = sys.argv[1:]
    atexit.register(_end_process)  # the first is called last
    for name in (*_IMPORTED, *modules):
        importlib.import_module(name)
    gc.freeze()  # the forked processes needn't look for garbage in it
    global _connection
    _connection = _fork_for_each(address)
    _become_client(_connection)
    code = 1
    try:
        _run_program()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        raise
    finally:
        _connection.send(bytes([code]))


if __name__ == "__main__":
    main()
