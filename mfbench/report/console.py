"""Where tables are printed."""

from __future__ import annotations

from rich.console import Console


class Output(Console):
    """Standard output. Where nobody reads on it fails as any stream does; rich would end with 1, which is a verdict."""

    def __init__(self) -> None:
        super().__init__(highlight=False)

    def on_broken_pipe(self) -> None:
        raise  # the BrokenPipeError that rich is handling
