"""What every layer of a model gives, by its path, to find where another engine's begins to differ."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from flax import nnx

from deeplab_jax.models import DeepLab
from deeplab_jax.models.layers import Conv


def layer_outputs(model: DeepLab, run: Callable[[DeepLab, Any], Any], images: np.ndarray) -> dict[str, np.ndarray]:
    """NHWC outputs of every convolution and BatchNorm, by the dotted path of the module, in the order of running."""
    with recorded_layers(model) as outputs:
        run(model, jax.numpy.asarray(images))
    return {path: np.asarray(output) for path, output in outputs.items()}


def running_order(model: DeepLab) -> list[str]:
    """Dotted paths of the convolutions and BatchNorms that make the logits, as they run; nothing is computed."""
    images = jax.ShapeDtypeStruct((1, 64, 64, model.config.encoder.in_channels), np.float32)
    with recorded_layers(model) as outputs:
        jax.eval_shape(lambda x: model(x), images)
    return list(outputs)


@contextmanager
def recorded_layers(model: DeepLab) -> Iterator[dict[str, Any]]:
    """What convolutions and BatchNorms return meanwhile, by the dotted path of the module."""
    paths = {
        id(module): ".".join(map(str, path))
        for path, module in nnx.iter_modules(model)
        if isinstance(module, (Conv, nnx.BatchNorm))
    }
    outputs: dict[str, Any] = {}
    with recorded(Conv, paths, outputs), recorded(nnx.BatchNorm, paths, outputs):
        yield outputs


@contextmanager
def recorded(kind: type, paths: dict[int, str], outputs: dict[str, Any]) -> Iterator[None]:
    call = kind.__call__

    def record(self, x, *args, **kwargs):
        outputs[paths[id(self)]] = y = call(self, x, *args, **kwargs)
        return y

    kind.__call__ = record
    try:
        yield
    finally:
        kind.__call__ = call


def first_difference(model: DeepLab, graph: Any, images: np.ndarray, tolerance: float) -> str:
    """The first convolution, with the BatchNorm in it, of an ONNX graph that differs by more than `tolerance`.

    Relative to the layer's largest value.
    """
    import onnx
    import onnxruntime

    layers = {node.name: node for node in graph.graph.node if node.op_type in ("Conv", "BatchNormalization")}
    probe = onnx.ModelProto()
    probe.CopyFrom(graph)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.helper.make_empty_tensor_value_info(node.output[0]) for node in layers.values())
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    result = session.run(None, {"images": np.ascontiguousarray(images.transpose(0, 3, 1, 2))})
    expected = layer_outputs(model, lambda model, x: model(x), images)
    for (name, node), other in zip(layers.items(), result, strict=True):
        norm = next((entry.value for entry in node.metadata_props if entry.key == "norm"), name)
        own = expected[norm].transpose(0, 3, 1, 2)
        with np.errstate(invalid="ignore"):  # of infinities
            if not np.abs(own - other).max() <= tolerance * np.abs(own).max():
                return name
    return "the last upsampling"
