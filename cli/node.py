"""`stair-es node`."""

import typer

app = typer.Typer(no_args_is_help=True, help="The embedded search node.")


@app.command()
def up() -> None:
    """Placeholder, replaced in the next commits."""
    raise NotImplementedError
