"""`python tether.py COMMAND...`: become the command, and receive SIGTERM when the parent process dies (Linux).

A separate program because `preexec_fn` runs Python code in a forked child, which is not safe with threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Replace this process by the command; the kernel keeps the death signal across `exec`."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # the parent has exited in between
        sys.exit(1)
    os.execv(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
