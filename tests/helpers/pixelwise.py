"""ONNX packages whose network looks at one pixel at a time: what they give can be worked out by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NAMES = ("background", "a", "b", "c")
SIZE = (40, 56)


def config(network_input: dict[str, Any] | None = None, steps: dict[str, Any] | None = None) -> dict[str, Any]:
    """inference_config.json as Roboflow writes it, with some values of its network_input changed."""
    return {
        "image_pre_processing": steps or {},
        "network_input": {
            "training_input_size": {"height": SIZE[0], "width": SIZE[1]},
            "dynamic_spatial_size_supported": True,
            "dynamic_spatial_size_mode": {"type": "pad-to-be-divisible", "value": 32},
            "color_mode": "rgb",
            "resize_mode": "stretch",
            "padding_value": 114,
            "input_channels": 3,
            "scaling_factor": 255,
            "normalization": [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]],
            **(network_input or {}),
        },
        "forward_pass": {"static_batch_size": None, "max_dynamic_batch_size": 4},
        "post_processing": {"type": "softmax", "fused": False},
    }


def kernel(channels: int = 3) -> np.ndarray:
    """(K, channels) float32: logits of a pixel are this times its network input."""
    return np.random.default_rng(5).normal(size=(len(NAMES), channels)).astype(np.float32)


def write(folder: Path, config: dict[str, Any], shape: tuple[Any, ...] = ("n", 3, "h", "w"), kind: int = 1) -> Path:
    """A package around one 1x1 convolution; `kind` is ONNX's number of the type of input and output."""
    folder.mkdir()
    weights = kernel(shape[1])[..., None, None].astype(helper.tensor_dtype_to_np_dtype(kind))
    graph = helper.make_graph(
        [helper.make_node("Conv", ["images", "kernel"], ["logits"])],
        "pixelwise",
        [helper.make_tensor_value_info("images", kind, shape)],
        [helper.make_tensor_value_info("logits", kind, (shape[0], len(NAMES), *shape[2:]))],
        [numpy_helper.from_array(weights, "kernel")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "weights.onnx")
    (folder / "class_names.txt").write_text("\n".join(NAMES))
    kinds = {"model_architecture": "deep-lab-v3-plus", "task_type": "semantic-segmentation", "backend_type": "onnx"}
    (folder / "model_config.json").write_text(json.dumps(kinds))
    (folder / "inference_config.json").write_text(json.dumps(config))
    return folder


HALF = TensorProto.FLOAT16
