"""Ctrl-C and SIGTERM: the step at hand is finished and saved before the process leaves."""

import signal
import threading
from types import FrameType, TracebackType

from deeplab_jax.train.schedule import Schedule
from deeplab_jax.train.sharding import is_alone, largest_of_all


class Preempted(KeyboardInterrupt):
    """The run was saved and can go on."""

    def __init__(self, number: int):
        self.exit_status = 128 + number  # as shells have it
        super().__init__(signal.Signals(number).name)


class Preemption:
    """Inside this context a first Ctrl-C or SIGTERM is only taken note of; a second leaves at once.

    A signal to one of several processes is a signal to all: they learn of it at the same step.
    """

    def __init__(self, schedule: Schedule):
        self._schedule, self._caught = schedule, 0
        # Python lets no other thread handle signals.
        numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        self._before = {number: signal.getsignal(number) for number in numbers}

    def __enter__(self) -> "Preemption":
        for number in self._before:
            signal.signal(number, self._catch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _catch(self, number: int, _: FrameType | None) -> None:
        if self._caught:
            raise Preempted(number)
        self._caught = number
        print("\nfinishing this step and saving; the same signal again leaves at once", flush=True)

    def signal(self) -> int:
        """The number of a signal so far, or 0; the same in all processes, which must all ask."""
        return largest_of_all(self._caught)

    def signal_after(self, step: int) -> int:
        """The same after a step. Several processes ask one another only where they wait for their devices anyway."""
        return self.signal() if is_alone() or self._schedule.sync(step) else 0
