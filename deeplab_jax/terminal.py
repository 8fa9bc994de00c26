"""What the commands print with."""

import sys

from rich.console import Console

console = Console()


def say(text: str) -> None:
    """Prints a line as it is: paths and names are no markup, and long ones stay whole."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def print_error(error: object) -> None:
    print(f"error: {error}", file=sys.stderr)
