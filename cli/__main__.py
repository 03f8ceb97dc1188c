"""Run the commands as `python -m stair_es.cli`, for launchers such as torchrun."""

from stair_es.cli.main import main

main()
