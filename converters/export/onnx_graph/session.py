"""Graphs in ONNX Runtime on the CPU. Without JAX, as TensorRT packages are built where there is none."""

from typing import Any

import numpy as np

from deeplab_jax.array_types import Float32

OneImage = Float32[np.ndarray, "1 channels h w"]  # network input


def open_session(graph: Any, *, exact: bool = False) -> Any:
    """An `onnxruntime.InferenceSession` of an `onnx.ModelProto`.

    Args:
        exact: compute what lies between DequantizeLinear and QuantizeLinear in float32, as it is written, and not in
            kernels of 8 bits: some CPUs' saturate where weights have all 8 bits, as those for TensorRT do.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if exact:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
