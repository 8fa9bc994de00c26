"""Runs engine.plan and trt_config.json with TensorRT on an NVIDIA GPU.

An engine is a program for one kind of GPU and one version of TensorRT. Nothing confines what its kernels do on the GPU,
so load only engines that you built or whose maker you trust. Code for the host, which an engine may carry as well, is
never run.
"""

from dataclasses import dataclass
from pathlib import Path

from deeplab_jax.errors import InputError, first_line
from deeplab_jax.inference.backends import Backend
from deeplab_jax.package.folder import Package
from deeplab_jax.serialization import from_dict, read_json


@dataclass(frozen=True)
class Batches:
    """How many images an engine takes at once."""

    least: int
    most: int


def load(package: Package, device: str | None) -> Backend:
    """What turns network input of 3 channels into logits.

    Any b will do; input that is not C-contiguous is copied. It can be called from several threads, which take turns.

    Raises:
        InputError: where TensorRT or a GPU is missing, or the engine was built for another version or GPU.
    """
    if device not in (None, "gpu", "cuda"):
        raise InputError(f"{package.folder} holds a TensorRT engine, which cannot run on the device {device!r}")
    batches = read_batches(package.folder / "trt_config.json")
    check_usable(f"the package {package.folder}")
    from deeplab_jax.inference.backends.tensorrt_engine import Engine

    path = package.folder / "engine.plan"
    try:
        engine = Engine(path, batches)
    except RuntimeError as error:  # the GPU's memory is full, mostly
        raise InputError(f"{path} cannot be loaded: {first_line(error)}") from error
    if not package.any_size:
        engine.check_size(package.preprocess.size, f"but {package.size_from} says")
    return engine.run


def check_usable(what: str) -> None:
    """Raises InputError, which says that `what` needs it, unless TensorRT, CUDA's bindings and a GPU are here."""
    try:
        import tensorrt  # pyright: ignore[reportMissingImports] # noqa: F401
        from cuda.bindings import runtime  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError) as error:  # OSError: a library that they load is missing
        raise InputError(
            f"{what} needs TensorRT; install it with: pip install 'deeplab_jax[tensorrt]' ({first_line(error)})"
        ) from None
    status, count = runtime.cudaGetDeviceCount()
    if status != runtime.cudaError_t.cudaSuccess or not count:
        raise InputError(f"{what} needs an NVIDIA GPU, and CUDA finds none here ({status.name})")


def read_batches(path: Path) -> Batches:
    """`{"static_batch_size": N}`, or the three `dynamic_batch_size_min`, `_opt` and `_max`."""
    config = from_dict(dict, read_json(path), str(path))
    if config.get("static_batch_size") is not None:
        sizes = [from_dict(int, config["static_batch_size"], f"{path}: static_batch_size")] * 3
    else:
        keys = [f"dynamic_batch_size_{name}" for name in ("min", "opt", "max")]
        sizes = [from_dict(int, config.get(key), f"{path}: {key}") for key in keys]
    if not 0 < sizes[0] <= sizes[1] <= sizes[2]:
        raise InputError(f"{path}: batch sizes {sizes} must rise from min to opt to max, from 1")
    return Batches(sizes[0], sizes[2])
