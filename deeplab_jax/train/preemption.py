"""Ctrl-C and SIGTERM: the step at hand is finished and saved before the process leaves."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Interrupted(KeyboardInterrupt):
    """The run was saved and can go on."""

    def __init__(self, number: int):
        self.exit_status = 128 + number  # as shells have it
        super().__init__(signal.Signals(number).name)


@contextmanager
def caught_signals() -> Iterator[Callable[[], int]]:
    """Inside, a first Ctrl-C or SIGTERM only makes the yielded function answer its number; a second leaves at once."""
    caught: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def catch(number: int, _: object) -> None:
        if caught:
            raise Interrupted(number)
        caught.append(number)
        print("\nfinishing this step and saving; the same signal again leaves at once", flush=True)

    if in_main_thread:
        for number in before:
            signal.signal(number, catch)
    try:
        yield lambda: caught[0] if caught else 0
    finally:
        if in_main_thread:
            for number, handler in before.items():
                signal.signal(number, handler)
