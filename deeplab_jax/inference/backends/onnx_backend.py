"""Runs weights.onnx with ONNX Runtime."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from deeplab_jax.errors import InputError, first_line
from deeplab_jax.inference.backends import Backend, Logits, NetworkInput
from deeplab_jax.inference.backends.device import parse_device
from deeplab_jax.package.folder import Package, check_logits
from deeplab_jax.package.limits import check_forward
from deeplab_jax.package.onnx_check.file import check_onnx_file

GPU, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
MOST_THREADS = 1024  # a process that asks for very many is ended
FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


def load(package: Package, device: str | None, providers: Sequence[Any] | None, threads: int | None) -> Backend:
    path = package.folder / "weights.onnx"
    try:
        import onnxruntime
    except ImportError:
        raise InputError(f"{package.folder} needs ONNX Runtime; install it with: pip install onnxruntime") from None
    available = onnxruntime.get_available_providers()
    chosen = providers_of(device, available) if providers is None else checked_providers(providers)
    names = [provider if isinstance(provider, str) else provider[0] for provider in chosen]
    absent = [name for name in names if name not in available]
    if absent:
        raise InputError(f"ONNX Runtime here has no {', '.join(absent)}; it has {', '.join(available)}")
    if not (threads is None or (type(threads) is int and 1 <= threads <= MOST_THREADS)):
        raise InputError(f"threads={threads!r} must be a whole number, 1 to {MOST_THREADS}")
    check_onnx_file(path, (package.max_batch, package.preprocess.channels, *package.preprocess.size))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    message = device is not None or providers is not None  # else ONNX Runtime may turn to the CPU where the GPU fails
    try:
        session = onnxruntime.InferenceSession(path, options, providers=chosen, enable_fallback=int(not message))
    except Exception as error:  # ONNX Runtime's own exceptions share no base class but this
        raise InputError(f"{path} cannot be loaded: {first_line(error)}") from error
    unused = [name for name in names if name not in session.get_providers()]
    if message and unused:
        raise InputError(f"{path} cannot be run by {', '.join(unused)}: ONNX Runtime could not start it")
    kind, static_batch = check_signature(package, session)
    name, output = session.get_inputs()[0].name, session.get_outputs()[0].name

    def run(images: NetworkInput) -> Logits:
        count, batch = len(images), static_batch or len(images)
        fill = -count % batch
        if fill:
            images = np.pad(images, [(0, fill), (0, 0), (0, 0), (0, 0)])
        try:
            parts = [
                np.asarray(session.run([output], {name: images[start : start + batch].astype(kind, copy=False)})[0])
                for start in range(0, count, batch)
            ]
        except Exception as error:
            raise InputError(f"{path} cannot be run: {first_line(error)}") from error
        logits = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return logits[:count].astype(np.float32, copy=False)

    return run


def checked_providers(providers: Any) -> list[Any]:
    """Raises InputError for what are no names, or pairs of a name and options."""
    listed = isinstance(providers, (list, tuple))
    kinds = (([type(part) for part in p] if isinstance(p, tuple) else type(p)) for p in providers) if listed else ()
    if not (listed and len(providers) > 0 and all(kind in (str, [str, dict]) for kind in kinds)):
        raise InputError(f"providers={providers!r} must be a list of names, or of pairs (name, dictionary of options)")
    return list(providers)


def providers_of(device: str | None, available: Sequence[str]) -> list[Any]:
    if device is None:
        return [name for name in (GPU, CPU) if name in available]
    kind, number = parse_device(device)
    if kind == "tpu":
        raise InputError("ONNX Runtime has no device 'tpu'; choose cpu or gpu")
    return [CPU] if kind == "cpu" else [(GPU, {"device_id": number}), CPU]


def check_signature(package: Package, session: Any) -> tuple[type, int]:
    """The type of the network input, and its number of images or 0 where that is free.

    Raises InputError unless the graph takes what the package says and gives logits.
    """
    path, channels, size = package.folder / "weights.onnx", package.preprocess.channels, package.preprocess.size
    (given,), output = session.get_inputs(), session.get_outputs()[0]  # of four sides each, as was checked in the file
    batch, planes, *sides = given.shape
    if given.type not in FLOATS or is_other(planes, channels):
        form = f"{given.type} {given.shape}"
        raise InputError(f"{path} must have one input of floats (batch, {channels}, height, width), not {form}")
    wanted = (None, None) if package.any_size else size
    if any(is_other(*pair) for pair in zip(sides, wanted, strict=True)):
        says = "not of any size" if package.any_size else f"but {package.size_from} says {size}"
        raise InputError(f"{path} takes images of {sides}, {says}; export it with --dynamic-size for other sizes")
    if output.type not in FLOATS:
        raise InputError(f"{path} must give logits first, as floats, not {output.type}")
    for count in output.shape[1:2]:  # of an output whose shape is declared
        if isinstance(count, int):
            check_logits(package, count)
    static_batch = batch if isinstance(batch, int) else 0
    check_forward(path, size, package.planes, static_batch)
    return FLOATS[given.type], static_batch


def is_other(side: int | str | None, wanted: int | None) -> bool:
    """Whether a side is fixed in the graph, to another value; None stands for all."""
    return isinstance(side, int) and side != wanted
