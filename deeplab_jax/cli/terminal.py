"""What the commands print with."""

import sys

from rich.console import Console

console = Console()


def say(text: str) -> None:
    """Prints a line as it is: paths and names are no markup, long ones stay whole, and none is beyond the encoding."""
    encoding = getattr(console.file, "encoding", None) or "utf-8"
    shown = text.encode(encoding, "backslashreplace").decode(encoding)
    console.print(shown, markup=False, emoji=False, highlight=False, soft_wrap=True)


def print_error(error: object) -> None:
    print(f"error: {error}", file=sys.stderr)
