"""The one exception for input that cannot be used."""

import math
from typing import Any

MOST_MESSAGE = 2000  # characters


class InputError(ValueError):
    """A file, folder or value from the user that cannot be used.

    The message is one line that names it and the fix; the command line prints it and exits with 1. It may quote what a
    user or a file says, so it is kept to one line of bearable length here.
    """

    def __init__(self, message: str):
        line = message.replace("\n", "\\n")
        super().__init__(line if len(line) <= MOST_MESSAGE else f"{line[:MOST_MESSAGE]} ...")


def first_line(error: Exception) -> str:
    """Of what another library says; the kind of error where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def check_finite(config: Any) -> None:
    """Raises InputError where a field is infinite or no number."""
    for name, value in vars(config).items():
        numbers = value if isinstance(value, tuple) else (value,)
        if not all(math.isfinite(n) for n in numbers if isinstance(n, float)):
            raise InputError(f"{name}={value} must be finite")
