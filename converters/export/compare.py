"""What every layer of a model gives, by its path, to find where another engine's begins to differ."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from deeplab_jax.models import DeepLab
from deeplab_jax.models.layers import Conv


def layer_outputs(model: DeepLab, run: Callable[[DeepLab, Any], Any], images: np.ndarray) -> dict[str, np.ndarray]:
    """NHWC outputs of every convolution and BatchNorm that runs, by the dotted path of the module."""
    layers = {path for path, module in nnx.iter_modules(model) if isinstance(module, (Conv, nnx.BatchNorm))}
    capture = nnx.capture(run, nnx.Intermediate, method_outputs=nnx.Intermediate)
    _, outputs = capture(model, jax.numpy.asarray(images))
    return {
        ".".join(map(str, path)): np.asarray(output.get_value()[-1])
        for (*path, method), output in nnx.to_flat_state(outputs)
        if method == "__call__" and tuple(path) in layers
    }


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
