"""JAX packages to ONNX packages: float32 NCHW logits, any batch size, checked against JAX before they are written."""

import warnings
from pathlib import Path

import jax
import numpy as np

from deeplab_jax.errors import InputError
from deeplab_jax.inference.backends import jax as jax_backend
from deeplab_jax.inference.package import check_vacant, read_package, write_package
from deeplab_jax.models import DeepLab

OPSET = 18  # the shared inference API's ONNX Runtime 1.22 reads opsets up to 22 and IR versions up to 10
TOLERANCE = 1e-4  # of the largest logit: float32 sums in another order differ by some 1e-6


def export(source: Path, out: Path) -> float:
    """Writes the JAX package `source` as an ONNX package; returns the largest difference over the largest logit.

    Raises:
        InputError: where `source` is no JAX package, the extra is not installed, or ONNX Runtime and JAX differ.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError:
        raise InputError("exporting to ONNX needs more packages: pip install 'deeplab_jax[onnx]'") from None
    package = read_package(source)
    if package.backend != "jax":
        raise InputError(f"{source} is an {package.backend} package; export starts from a JAX package")
    check_vacant(out)
    model = jax_backend.load_model(source)
    graph = trace(model, package.preprocess.size)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    worst = max(difference(model, session, batch, package.preprocess.size) for batch in (1, 3))
    if not worst <= TOLERANCE:
        raise InputError(f"the ONNX graph differs from JAX by {worst:.1e} of the largest logit; {out} was not written")
    write_package(
        out,
        "onnx",
        package.classes,
        package.preprocess,
        lambda folder: onnx.save(graph, str(folder / "weights.onnx")),
    )
    return worst


def trace(model: DeepLab, size: tuple[int, int]):
    """The model as an `onnx.ModelProto` with one input `images` (batch, 3, h, w) and one output `logits`."""
    import jax2onnx
    import onnx

    model.set_attributes(form="conv", raise_if_not_found=False)  # one Conv node a depthwise convolution
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*'.value' access is now deprecated", DeprecationWarning)  # jax2onnx's own
        graph = jax2onnx.to_onnx(
            model,
            [("batch", *size, model.config.encoder.in_channels)],
            model_name="deeplab",
            opset=OPSET,
            inputs_as_nchw=[0],
            outputs_as_nchw=[0],
            input_names=["images"],
            output_names=["logits"],
        )
    # Some recorded shapes are still NHWC where the graph has become NCHW; ONNX Runtime may refuse those.
    del graph.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(graph, strict_mode=True)
    onnx.checker.check_model(graph, full_check=True)
    return graph


def difference(model: DeepLab, session, batch: int, size: tuple[int, int]) -> float:
    """Largest difference between ONNX Runtime's logits and JAX's, relative to the largest logit."""
    channels = model.config.encoder.in_channels
    images = np.random.default_rng(batch).normal(size=(batch, *size, channels)).astype(np.float32)
    expected = np.asarray(jax.jit(model.__call__)(images)).transpose(0, 3, 1, 2)
    found = session.run(None, {"images": np.ascontiguousarray(images.transpose(0, 3, 1, 2))})[0]
    return float(np.abs(found - expected).max() / np.abs(expected).max())
