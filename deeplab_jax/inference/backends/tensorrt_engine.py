"""A TensorRT engine with its own device buffers and CUDA stream; the only module that runs anything on a GPU by hand.

Imported only where `check_usable` has passed. The stream orders all work, and each piece of a batch is waited for.
"""

import math
import threading
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tensorrt as trt  # pyright: ignore[reportMissingImports]
from cuda.bindings import runtime as cuda  # pyright: ignore[reportMissingImports]

from deeplab_jax.errors import InputError
from deeplab_jax.inference.backends import Logits, NetworkInput
from deeplab_jax.inference.backends.tensorrt_backend import Batches

DEVICE = 0  # CUDA_VISIBLE_DEVICES says which one that is

Started = TypeVar("Started")


class Log(trt.ILogger):
    """Keeps TensorRT's errors, which it would print."""

    def __init__(self):
        trt.ILogger.__init__(self)
        self._errors: list[str] = []

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self._errors.append(" ".join(msg.split()))

    def take(self) -> str:
        """What has gone wrong since the last call, in one line."""
        stated, self._errors = self._errors, []
        return "; ".join(stated[:3]) or "TensorRT gives no reason"


class Engine:
    """Call `run`. Its memory on the GPU is freed with it."""

    def __init__(self, path: Path, batches: Batches):
        """Args:
            path: the engine.plan.
            batches: what trt_config.json says; no less than the engine must take.

        Raises:
            InputError: that names the file, where the engine does not fit this machine, or the package the engine.
        """
        self._path, self._batches, self._log, self._lock = path, batches, Log(), threading.Lock()
        done(cuda.cudaSetDevice(DEVICE))
        runtime = start(trt.Runtime, self._log)
        runtime.engine_host_code_allowed = False
        engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise InputError(
                f"{path} cannot be loaded by TensorRT {trt.__version__}: {self._log.take()} (an engine runs only with "
                f"the version and on the kind of GPU that it was built with; build it again with: deeplab export)"
            )
        self._input, self._output = ports(engine, path)
        least, most = limits(engine, self._input)
        if not (least[0] <= batches.least and batches.most <= most[0]):
            raise InputError(
                f"{path} takes {least[0]} to {most[0]} images at once, but trt_config.json says {batches.least} to "
                f"{batches.most}"
            )
        self._sides = least[2:], most[2:]
        self._context = engine.create_execution_context()
        if self._context is None:
            raise InputError(f"{path} needs more memory than the GPU has: {self._log.take()}")
        self._owners = runtime, engine  # which must outlive the context
        with ExitStack() as cleanup:
            self._stream = done(cuda.cudaStreamCreate())
            cleanup.callback(cuda.cudaStreamDestroy, self._stream)
            self._buffers = {}
            for name, shape in ((self._input, most), (self._output, self._output_shape(most))):
                self._buffers[name] = done(cuda.cudaMalloc(4 * math.prod(shape)))
                cleanup.callback(cuda.cudaFree, self._buffers[name])
                done(cuda.cudaMemset(self._buffers[name], 0, 4 * math.prod(shape)))
                self._context.set_tensor_address(name, self._buffers[name])
            weakref.finalize(self, cleanup.pop_all().close)

    def check_size(self, size: tuple[int, ...], says: str) -> None:
        """Raises InputError unless the engine takes images of that (height, width)."""
        least, most = self._sides
        fits = all(low <= side <= high for low, side, high in zip(least, size, most, strict=True))
        mend = "give another size=, or --size, or build it for more with --height and --width"
        if not fits:
            raise InputError(f"{self._path} takes images of {least} to {most}, {says} {size}; {mend}")

    def run(self, images: NetworkInput) -> Logits:
        """Of any number of images of 3 channels."""
        self.check_size(images.shape[2:], "not of")
        images = np.ascontiguousarray(images, np.float32)  # no copy where it is; CUDA sees bytes alone
        pieces = [images[start : start + self._batches.most] for start in range(0, len(images), self._batches.most)]
        return np.concatenate([self._run(piece) for piece in pieces])

    def _run(self, images: NetworkInput) -> Logits:
        # Where there are too few images, those of an earlier run fill the batch up.
        shape = (max(len(images), self._batches.least), *images.shape[1:])
        with self._lock:
            done(cuda.cudaSetDevice(DEVICE))
            logits = np.empty((len(images), *self._output_shape(shape)[1:]), np.float32)
            upwards, downwards = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice, cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
            source, target = self._buffers[self._input], self._buffers[self._output]
            try:
                done(cuda.cudaMemcpyAsync(source, images.ctypes.data, images.nbytes, upwards, self._stream))
                if not self._context.execute_async_v3(int(self._stream)):
                    raise RuntimeError(f"TensorRT could not run the engine: {self._log.take()}")
                done(cuda.cudaMemcpyAsync(logits.ctypes.data, target, logits.nbytes, downwards, self._stream))
            finally:  # the arrays must not go while they are copied
                done(cuda.cudaStreamSynchronize(self._stream))
            return logits

    def _output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Prepares the context for input of that shape."""
        if not self._context.set_input_shape(self._input, shape):
            raise InputError(f"the engine does not take input of shape {shape}: {self._log.take()}")
        return self._context.get_tensor_shape(self._output)[:]


def start(kind: Callable[[Log], Started], log: Log) -> Started:
    """A Runtime or a Builder. Raises InputError where the driver is too old for this TensorRT, say."""
    try:
        return kind(log)
    except TypeError:  # which is how the bindings say that they were given a null pointer
        raise InputError(f"TensorRT {trt.__version__} cannot start on this machine: {log.take()}") from None


def ports(engine: trt.ICudaEngine, path: Path) -> tuple[str, str]:
    """The names of its one input and its one output."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outputs = [name for name in names if name not in inputs]
    if not len(inputs) == len(outputs) == 1:
        raise InputError(f"{path} must have one input and one output, not {inputs} and {outputs}")
    for name in names:
        kind = engine.get_tensor_dtype(name)
        if kind != trt.DataType.FLOAT:
            raise InputError(f"{path}: {name} must be float32, not {kind}")
        if len(engine.get_tensor_shape(name)) != 4:
            raise InputError(f"{path}: {name} must have 4 axes")
    return inputs[0], outputs[0]


def limits(engine: trt.ICudaEngine, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The least and the largest shape of its input."""
    shape = engine.get_tensor_shape(name)[:]
    if -1 not in shape:
        return shape, shape
    least, _, most = engine.get_tensor_profile_shape(name, 0)
    return least[:], most[:]


def done(result: tuple) -> Any:
    """What a call of CUDA returned, but for the status. Raises RuntimeError where that is no success."""
    status, *values = result
    if status != cuda.cudaError_t.cudaSuccess:
        raise RuntimeError(f"CUDA: {status.name}")
    return values[0] if values else None
