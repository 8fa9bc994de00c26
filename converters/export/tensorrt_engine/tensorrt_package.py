"""ONNX packages to TensorRT packages: an engine for the GPU of this machine, checked before it is put in place.

The precision is the graph's: float32, float16, or int8 with QuantizeLinear and DequantizeLinear, as it was exported to
ONNX. Everything that can be said without a GPU is said first; what needs one is in `build`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from converters.export.onnx_graph.session import open_session
from deeplab_jax.errors import InputError, first_line
from deeplab_jax.inference.backends import Backend
from deeplab_jax.inference.backends.tensorrt_backend import Batches, check_usable
from deeplab_jax.package.folder import check_vacant, read_package, write_package
from deeplab_jax.package.inference_config import MAX_BATCH

Report = Callable[[str, int, int], None]  # what TensorRT is at, and how many steps of it are done, of how many
TOLERANCES = {"float32": 1e-3, "float16": 5e-2, "int8": 0.3}  # of the largest logit: an engine beyond them is broken


class Span(NamedTuple):
    """The sizes of one axis. Kernels are chosen for the usual one."""

    least: int
    usual: int
    most: int


ANY_BATCH = Span(1, 1, MAX_BATCH)


@dataclass(frozen=True)
class Profile:
    """What an engine is built for."""

    batch: Span = ANY_BATCH  # images at once; larger batches go through in pieces
    height: Span | None = None  # px; None: the package's own alone
    width: Span | None = None

    def shapes(self, declared: tuple[int | None, ...], size: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
        """The least, the usual and the largest (b, 3, h, w).

        Args:
            declared: the (b, 3, h, w) of the graph's input, None where it is symbolic.
            size: height and width that the package works with.

        Raises:
            InputError: for sizes that do not rise, that the graph does not allow, or that leave out `size`.
        """
        batch, _, *sides = declared
        height, width = self.height or Span(*size[:1] * 3), self.width or Span(*size[1:] * 3)
        axes = {"batch": (self.batch, batch), "height": (height, sides[0]), "width": (width, sides[1])}
        for name, (span, fixed) in axes.items():
            if not 1 <= span.least <= span.usual <= span.most:
                raise InputError(f"{name} {tuple(span)} must rise from least to most, from 1")
            if fixed is not None and set(span) != {fixed}:
                raise InputError(
                    f"{name} {tuple(span)} does not fit the ONNX graph, whose {name} is {fixed}; give {fixed} three "
                    f"times, or export to ONNX with a symbolic {name}"
                )
        for name, span, side in (("height", height, size[0]), ("width", width, size[1])):
            if not span.least <= side <= span.most:
                raise InputError(f"{name} {tuple(span)} leaves out {side}, the package's own")
        return tuple((b, 3, h, w) for b, h, w in zip(self.batch, height, width, strict=True))


def export(source: Path, out: Path, profile: Profile, report: Report) -> float:
    """Writes the ONNX package `source` as a TensorRT package; returns the largest difference over the largest logit.

    Building takes minutes. What is learned about the speed of kernels is kept (`build.timing_cache`), so that
    the next build of such a model takes less.

    Args:
        report: called while the engine is built, from several threads, one at a time.

    Raises:
        InputError: where `source` is no ONNX package or no graph for TensorRT, the profile does not fit it, TensorRT
            or a GPU is missing, or the engine and ONNX Runtime differ.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401

        from converters.export.tensorrt_engine.check import check_graph, precision
    except ImportError as error:
        raise InputError(
            f"exporting to TensorRT needs more packages: pip install 'deeplab_jax[tensorrt]' ({first_line(error)})"
        ) from None
    package = read_package(source)
    if package.backend != "onnx":
        raise InputError(f"{source} is no ONNX package; export it to ONNX first, then to TensorRT")
    check_vacant(out)
    path, size = source / "weights.onnx", package.preprocess.size
    graph = onnx.load(path)
    declared = check_graph(graph, path)
    shapes = profile.shapes(declared, size)
    tolerance = TOLERANCES[precision(graph)]
    check_usable("exporting to TensorRT")
    from converters.export.tensorrt_engine.build import build
    from deeplab_jax.inference.backends.tensorrt_engine import Engine

    plan = build(path, shapes, report)
    session = open_session(graph, exact=True)
    worst = float("nan")

    def write_weights(folder: Path) -> None:
        nonlocal worst
        (folder / "engine.plan").write_bytes(plan)
        (folder / "trt_config.json").write_text(json.dumps(trt_config(profile.batch), indent=2) + "\n")
        engine = Engine(folder / "engine.plan", Batches(profile.batch.least, profile.batch.most))
        counts = (declared[0],) if declared[0] else (1, 3)
        *_, height, width = shapes[0]
        cases = product(counts, {size, (height, width)})  # the package's size, and the least
        worst = float(np.max([difference(engine.run, session, *case) for case in cases]))  # or NaN
        if not worst <= tolerance:
            raise InputError(
                f"the engine differs from {path} by {worst:.1e} of the largest logit; {out} was not written"
            )

    settings = {"max_batch": profile.batch.most, "dynamic_size": package.any_size and shapes[0][2:] != shapes[2][2:]}
    write_package(out, "trt", package.classes, package.preprocess, write_weights, **settings)
    return worst


def trt_config(batch: Span) -> dict[str, int]:
    """What the shared inference API reads beside an engine."""
    if batch.least == batch.most:
        return {"static_batch_size": batch.most}
    return {f"dynamic_batch_size_{name}": size for name, size in zip(("min", "opt", "max"), batch, strict=True)}


def difference(run: Backend, session: Any, count: int, size: tuple[int, int]) -> float:
    """Largest difference between the engine's logits and ONNX Runtime's, relative to the largest logit."""
    images = np.random.default_rng(count).normal(size=(count, 3, *size)).astype(np.float32)
    expected = session.run(None, {session.get_inputs()[0].name: images})[0]
    largest = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))  # all of them may be zero
    return float(np.abs(run(images) - expected).max()) / largest
