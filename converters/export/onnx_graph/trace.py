"""A JAX model as an ONNX graph, NCHW, for any batch, height and width."""

import warnings

import onnx
import onnx_ir as ir

import deeplab_jax
from converters.export.onnx_graph import passes
from converters.export.onnx_graph.graph import described, infer_shapes
from converters.export.onnx_graph.jax2onnx_mended import jax2onnx
from converters.export.onnx_graph.layout import channels_first
from converters.export.onnx_graph.names import name_all, name_layers, numbered
from converters.export.onnx_graph.sizes import TRACED, generalize
from deeplab_jax.models import DeepLab

OPSET = 18  # the shared inference API's ONNX Runtime 1.22 reads opsets up to 22 and IR versions up to 10
IR_VERSION = 10


def trace(model: DeepLab) -> ir.Model:
    """One input `images` (batch, channels, height, width), one output `logits` of the same size; both float32."""
    traceable = numbered(model)
    traceable.set_attributes(form="conv", raise_if_not_found=False)  # one Conv node a convolution
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*'.value' access is now deprecated", DeprecationWarning)  # jax2onnx's
        traced = jax2onnx.to_onnx(
            traceable,
            [(1, *TRACED, model.config.encoder.in_channels)],
            model_name="deeplab",
            opset=OPSET,
            input_names=["images"],
            output_names=["logits"],
            return_mode="ir",
        )
    return tidy(traced, model)


def tidy(traced: ir.Model, model: DeepLab) -> ir.Model:
    """As an expert would have written it."""
    traced = infer_shapes(traced)
    graph = traced.graph
    passes.fold_constants(graph)
    passes.drop_identities(graph)
    passes.pool_globally(graph)
    passes.resize(graph)
    passes.broadcast_pooled(graph)
    channels_first(graph)
    passes.pad_in_pool(graph)
    passes.subsample(graph)
    passes.clip(graph)
    name_layers(graph, model)
    passes.fold_norms(graph)
    passes.fold_biases(graph)
    passes.state_kernel_shapes(graph)
    return generalize(traced)


def finish(model: ir.Model, metadata: dict[str, str]) -> onnx.ModelProto:
    """The checked file of a graph: named throughout, with metadata and nothing unused."""
    model = model.clone()
    passes.drop_unused(model.graph)
    name_all(model.graph)
    model.graph.name = "deeplab"
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "deeplab_jax", deeplab_jax.__version__
    model.metadata_props.clear()
    model.metadata_props.update(metadata)
    return described(ir.to_proto(model))
