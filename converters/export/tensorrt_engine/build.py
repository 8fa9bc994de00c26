"""Builds a TensorRT engine. Imported only where `check_usable` has passed, for it needs TensorRT and a GPU."""

import contextlib
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorrt as trt  # pyright: ignore[reportMissingImports]
from cuda.bindings import runtime as cuda  # pyright: ignore[reportMissingImports]

from deeplab_jax.errors import InputError
from deeplab_jax.inference.backends.tensorrt_engine import DEVICE, Log, done, start

Shapes = tuple[tuple[int, ...], ...]


def build(path: Path, shapes: Shapes, report: Callable[[str, int, int], None]) -> bytes:
    """The engine of an ONNX file, as the bytes of an engine.plan.

    Types are those of the graph (a strongly typed network), and float32 is float32: no TF32.

    Args:
        path: the ONNX file.
        shapes: the least, the usual and the largest (b, 3, h, w) of its input.
        report: is told what TensorRT is at, and how many steps of it are done, of how many. What it raises ends the
            build, and so does Ctrl-C.

    Raises:
        InputError: that says what TensorRT has against the graph.
    """
    done(cuda.cudaSetDevice(DEVICE))
    log = Log()
    builder = start(trt.Builder, log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(path)):
        raise InputError(f"TensorRT {trt.__version__} cannot read {path}: {parser_errors(parser) or log.take()}")
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, *(trt.Dims([*shape]) for shape in shapes))
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    config.clear_flag(trt.BuilderFlag.TF32)
    progress = Progress(report)
    config.progress_monitor = progress
    kept = timing_cache()
    times = attach(config, read(kept)) or attach(config, b"")
    plan: Any = builder.build_serialized_network(network, config)  # a buffer, which the bindings do not declare
    if progress.stopped is not None:
        raise progress.stopped
    if plan is None:
        raise InputError(f"TensorRT {trt.__version__} cannot build an engine from {path}: {log.take()}")
    if times is not None:
        data: Any = times.serialize()
        keep(kept, bytes(data))
    return bytes(plan)


class Progress(trt.IProgressMonitor):
    """Hands on what TensorRT says from its threads, one call at a time."""

    def __init__(self, report: Callable[[str, int, int], None]):
        trt.IProgressMonitor.__init__(self)
        self.stopped: BaseException | None = None  # what `report` raised; TensorRT cannot pass it on
        self._report, self._lock = report, threading.Lock()
        self._steps: dict[str, int] = {}

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        self._steps[phase_name] = num_steps
        self._say(phase_name, 0)

    def step_complete(self, phase_name: str, step: int) -> bool:
        self._say(phase_name, step + 1)
        return self.stopped is None

    def phase_finish(self, phase_name: str) -> None:
        self._say(phase_name, self._steps.get(phase_name, 0))

    def _say(self, phase: str, done: int) -> None:
        try:
            with self._lock:
                self._report(phase, done, self._steps[phase])
        except BaseException as error:
            self.stopped = error


def parser_errors(parser: trt.OnnxParser) -> str:
    errors = [parser.get_error(index) for index in range(min(parser.num_errors, 3))]
    return "; ".join(f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors)


def timing_cache() -> Path:
    """Where the times of kernels are kept: $XDG_CACHE_HOME (~/.cache)/deeplab_jax, one file a version and GPU."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    gpu = done(cuda.cudaGetDeviceProperties(DEVICE)).name.decode()
    return home / "deeplab_jax" / (re.sub(r"\W+", "-", f"tensorrt {trt.__version__} {gpu}") + ".timing")


def attach(config: trt.IBuilderConfig, data: bytes) -> trt.ITimingCache | None:
    """The times in use now; None where they are of another version or GPU."""
    times = config.create_timing_cache(data)
    return times if times is not None and config.set_timing_cache(times, ignore_mismatch=False) else None


def read(path: Path) -> bytes:
    """Nothing where there is no such file: a build without times is only slower."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def keep(path: Path, data: bytes) -> None:
    """Writes the file whole or not at all, for others may build at the same time."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(path)
