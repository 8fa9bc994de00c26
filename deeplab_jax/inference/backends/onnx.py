"""Runs weights.onnx with ONNX Runtime."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deeplab_jax.errors import InputError, first_line
from deeplab_jax.inference.package import Package

PROVIDERS = {"cpu": ["CPUExecutionProvider"], "gpu": ["CUDAExecutionProvider", "CPUExecutionProvider"]}
PROVIDERS["cuda"] = PROVIDERS["gpu"]


def load(package: Package, device: str | None, providers: Sequence[Any] | None) -> Callable[[np.ndarray], np.ndarray]:
    path = package.folder / "weights.onnx"
    try:
        import onnxruntime
    except ImportError:
        raise InputError(f"{package.folder} needs ONNX Runtime; install it with: pip install onnxruntime") from None
    available = onnxruntime.get_available_providers()
    if providers is None and device is None:
        providers = [name for name in PROVIDERS["gpu"] if name in available]
    elif providers is None:
        if device not in PROVIDERS:
            raise InputError(f"device {device!r} is not known to ONNX Runtime here; choose one of {list(PROVIDERS)}")
        providers = PROVIDERS[device]
    names = [provider if isinstance(provider, str) else provider[0] for provider in providers]
    absent = [name for name in names if name not in available]
    if absent:
        raise InputError(f"ONNX Runtime here has no {', '.join(absent)}; it has {', '.join(available)}")
    try:
        session = onnxruntime.InferenceSession(path, providers=list(providers))
    except Exception as error:  # ONNX Runtime's own exceptions share no base class but this
        raise InputError(f"{path} cannot be loaded: {first_line(error)}") from error
    (name, shape), *others = [(node.name, node.shape) for node in session.get_inputs()]
    if others or len(shape) != 4 or shape[1] != 3:
        raise InputError(f"{path} must have one input of shape (batch, 3, height, width), not {shape}")
    size = package.preprocess.size
    if any(isinstance(side, int) and side != wanted for side, wanted in zip(shape[2:], size, strict=True)):
        raise InputError(f"{path} takes pictures of {shape[2:]}, but inference_config.json says {size}")
    static_batch = shape[0] if isinstance(shape[0], int) else 0

    def run(images: np.ndarray) -> np.ndarray:
        fill = max(static_batch - len(images), 0)
        padded = np.pad(images, [(0, fill), (0, 0), (0, 0), (0, 0)])
        logits = session.run(None, {name: np.ascontiguousarray(padded.transpose(0, 3, 1, 2))})[0]
        return np.asarray(logits)[: len(images)]

    return run
