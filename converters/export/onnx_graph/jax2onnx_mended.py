"""jax2onnx for JAX 0.12, where 0.17.1 misses a class that moved. It can go when jax2onnx takes it from jax.extend."""

import jax._src.core
import jax.extend.core

jax._src.core.ClosedJaxpr = jax.extend.core.ClosedJaxpr

import jax2onnx as jax2onnx  # noqa: E402
