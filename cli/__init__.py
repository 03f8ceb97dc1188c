"""The `stair-es` command: one command a file; `main.py` is the only exit point."""
