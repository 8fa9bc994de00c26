"""How much memory something takes."""

import contextlib
import tracemalloc


@contextlib.contextmanager
def little_memory(most: int):
    """Fails where Python takes as many bytes inside."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()
