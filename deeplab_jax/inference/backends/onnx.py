"""Runs weights.onnx with ONNX Runtime."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from deeplab_jax.errors import InputError

PROVIDERS = {"cpu": ["CPUExecutionProvider"], "gpu": ["CUDAExecutionProvider", "CPUExecutionProvider"]}
PROVIDERS["cuda"] = PROVIDERS["gpu"]


def load(folder: Path, device: str | None, providers: Sequence[str] | None) -> Callable[[np.ndarray], np.ndarray]:
    try:
        import onnxruntime
    except ImportError:
        raise InputError(f"{folder} needs ONNX Runtime; install it with: pip install onnxruntime") from None
    available = onnxruntime.get_available_providers()
    if providers is None and device is None:
        providers = [name for name in PROVIDERS["gpu"] if name in available]
    elif providers is None:
        if device not in PROVIDERS:
            raise InputError(f"device {device!r} is not known to ONNX Runtime here; choose one of {list(PROVIDERS)}")
        providers = PROVIDERS[device]
    absent = [name for name in providers if name not in available]
    if absent:
        raise InputError(f"ONNX Runtime here has no {', '.join(absent)}; it has {', '.join(available)}")
    try:
        session = onnxruntime.InferenceSession(folder / "weights.onnx", providers=list(providers))
    except Exception as error:  # ONNX Runtime's own exceptions share no base class but this
        raise InputError(f"{folder / 'weights.onnx'} cannot be loaded: {str(error).splitlines()[0]}") from error
    name = session.get_inputs()[0].name

    def run(images: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(None, {name: np.ascontiguousarray(images.transpose(0, 3, 1, 2))})[0])

    return run
