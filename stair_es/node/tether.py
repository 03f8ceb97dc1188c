"""`python tether.py COMMAND...`: become the command, and be sent SIGTERM when the process that started it dies (Linux).

A program of its own because `preexec_fn` runs Python code in a forked child, which isn't safe beside threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Replace this process by the command; the kernel keeps the request across `exec`."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died in between
        sys.exit(1)
    os.execv(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
