"""Names of devices, such as "cpu", "gpu" or "cuda:1"."""

import re

from deeplab_jax.errors import InputError


def parse_device(name: str) -> tuple[str, int]:
    """Its kind ("cpu", "gpu" or "tpu") and its number. Raises InputError for what is none."""
    result = re.fullmatch(r"(cpu|gpu|cuda|tpu)(?::(\d{1,4}))?", name)
    if result is None:
        raise InputError(f"device {name!r} must be cpu, gpu, cuda or tpu, or one of several, such as gpu:1")
    kind, number = result.groups()
    return "gpu" if kind == "cuda" else kind, int(number or 0)
