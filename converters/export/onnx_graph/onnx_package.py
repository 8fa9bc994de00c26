"""JAX packages to ONNX packages: float32 NCHW, any batch size, checked against JAX before they are written."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Bool, Float32, Int64

import deeplab_jax
from converters.export.compare import first_difference
from converters.export.onnx_graph.session import OneImage, open_session
from converters.export.source import Source, read_source
from deeplab_jax.errors import InputError, first_line
from deeplab_jax.models import DeepLab
from deeplab_jax.package.folder import Package, check_vacant, write_package

TOLERANCE = 1e-4  # of the largest logit: float32 sums in another order differ by some 1e-6
SMALLEST = float(np.finfo(np.float32).tiny)  # of a largest logit, where all of them are zero
ODD_SIZE = (97, 161)  # at which every graph is checked before it is fixed to a size


def check_installed() -> None:
    """Raises InputError unless what exporting needs is."""
    try:
        import onnxruntime  # noqa: F401

        from converters.export.onnx_graph.jax2onnx_mended import jax2onnx  # noqa: F401
    except ImportError:
        raise InputError("exporting to ONNX needs more packages: pip install 'deeplab_jax[onnx]'") from None


def export(source: Path, out: Path, *, dynamic_size: bool = False) -> float:
    """Writes the JAX package `source` as an ONNX package; returns the largest difference over the largest logit.

    Raises:
        InputError: where `source` is no JAX package, the extra is not installed, or ONNX Runtime and JAX differ.
    """
    check_vacant(out)
    check_installed()
    read = read_source(source)
    graph, worst = build(read, dynamic_size)
    write(out, graph, read.package, dynamic_size)
    return worst


def build(source: Source, dynamic_size: bool) -> tuple[Any, float]:
    """The checked `onnx.ModelProto`, and its largest difference from JAX over the largest logit.

    Raises InputError that names the first layer that differs, where the logits do.
    """
    from converters.export.onnx_graph.sizes import fix_size
    from converters.export.onnx_graph.trace import finish, trace

    general = trace(source.model)
    metadata = describe(source, dynamic_size)
    graph = finish(general if dynamic_size else fix_size(general, source.size), metadata)
    if not dynamic_size:
        check(source.model, finish(general, metadata), ODD_SIZE, (1,))
    return graph, max(check(source.model, graph, size, (1, 3)) for size in checked_sizes(source.package, dynamic_size))


def checked_sizes(package: Package, dynamic_size: bool) -> list[tuple[int, int]]:
    """At which a graph is run before it is written."""
    return [*([ODD_SIZE] if dynamic_size else []), package.preprocess.size]


def check_runs(graph: Any, sizes: list[tuple[int, int]], *, exact: bool = False) -> None:
    """Raises InputError for a graph in lower precision that ONNX Runtime cannot run, or whose logits are not finite.

    `exact` as in `open_session`.
    """
    try:
        session = open_session(graph, exact=exact)
        channels = session.get_inputs()[0].shape[1]
        for (height, width), batch in product(sizes, (1, 3)):
            images = np.random.default_rng(0).normal(size=(batch, height, width, channels)).astype(np.float32)
            if not np.isfinite(run(session, images)).all():
                raise InputError(f"its logits at batch {batch} and {height}x{width} are not finite")
    except Exception as error:  # ONNX Runtime's own exceptions share no base class but this
        why = first_line(error)
        raise InputError(f"the graph in lower precision cannot be run: {why}; nothing was written") from None


def agreement(graph: Any, other: Any, inputs: list[OneImage], *, exact: bool = False) -> float:
    """The part of the pixels to which two graphs give the same class.

    `exact` as in `open_session`.
    """
    sessions = [open_session(each, exact=exact) for each in (graph, other)]
    same = []
    for planes in inputs:
        first, second = (class_ids(session.run(None, {"images": planes})[0]) for session in sessions)
        same.append((first == second).mean())
    return float(np.mean(same))


def class_ids(logits: Float32[np.ndarray, "b k h w"]) -> Int64[np.ndarray, "b h w"] | Bool[np.ndarray, "b h w"]:
    """The largest of K; of one alone, whether its sigmoid is 0.5 or more."""
    return logits[:, 0] >= 0 if logits.shape[1] == 1 else logits.argmax(1)


def write(out: Path, graph: Any, package: Package, dynamic_size: bool) -> None:
    import onnx

    def save(folder: Path) -> None:
        onnx.save(graph, str(folder / "weights.onnx"))

    write_package(out, "onnx", package.classes, package.preprocess, save, dynamic_size=dynamic_size)


def describe(source: Source, dynamic_size: bool) -> dict[str, str]:
    """What a reader of the file alone must know; the packages of the shared API say it in files of their own."""
    classes, preprocess = source.package.classes, source.package.preprocess
    height, width = preprocess.size
    channels = preprocess.color_mode.upper()
    fit = "of any size" if dynamic_size else f"{preprocess.resize_mode} to {height}x{width}"
    return {
        "class_names": json.dumps(classes.names),
        "input": f"{channels}, 0 to 1, minus mean, by std; {fit}",
        "mean": json.dumps(preprocess.mean),
        "std": json.dumps(preprocess.std),
        "output": "one logit, before sigmoid" if source.model.config.num_classes == 1 else "logits, before softmax",
        "made_by": f"deeplab_jax {deeplab_jax.__version__}",
    }


def check(model: DeepLab, graph: Any, size: tuple[int, int], batches: tuple[int, ...]) -> float:
    """Largest difference between ONNX Runtime's logits and JAX's, over the largest logit.

    Raises InputError that names the first layer that differs, where the logits do.
    """
    channels = model.config.encoder.in_channels
    images = np.random.default_rng(0).normal(size=(max(batches), *size, channels)).astype(np.float32)
    expected = np.asarray(nnx.jit(lambda model, x: model(x))(model, images)).transpose(0, 3, 1, 2)
    if not np.isfinite(expected).all():
        layer = first_difference(model, graph, images[:1], TOLERANCE)
        raise InputError(
            f"the model's own logits are not finite, first in {layer}: its weights hold NaN or infinity, or are too "
            "large for float32; nothing was written"
        )
    largest = max(float(np.abs(expected).max()), SMALLEST)
    session = open_session(graph)
    worst = 0.0
    for batch in batches:
        result = run(session, images[:batch])
        difference = float(np.abs(result - expected[:batch]).max()) / largest
        if not difference <= TOLERANCE:
            layer = first_difference(model, graph, images[:1], TOLERANCE)
            raise InputError(
                f"the ONNX graph differs from JAX by {difference:.1e} of the largest logit at batch {batch} and "
                f"{size[0]}x{size[1]}, first in {layer}; nothing was written"
            )
        worst = max(worst, difference)
    return worst


def run(session: Any, images: Float32[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b k h w"]:
    """The logits, channels first, of images whose channels are last."""
    return session.run(None, {"images": np.ascontiguousarray(images.transpose(0, 3, 1, 2))})[0]
