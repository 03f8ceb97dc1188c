"""`python tether.py PARENT COMMAND...`: become the command, and receive SIGTERM when the process PARENT dies (Linux).

A separate program because `preexec_fn` runs Python code in a forked child, which is not safe with threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Replace this process by the command; the kernel keeps the death signal across `exec`."""
    parent, *command = sys.argv[1:]
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it died before the signal was requested
        sys.exit(1)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
