"""jax2onnx for JAX 0.12, where it misses a class that moved.

0.17.1, the newest release, still takes it from `jax._src` (https://github.com/enpasos/jax2onnx); this file can go with
the one that takes it from `jax.extend`.
"""

import jax._src.core
import jax.extend.core

if not hasattr(jax._src.core, "ClosedJaxpr"):
    jax._src.core.ClosedJaxpr = jax.extend.core.ClosedJaxpr

import jax2onnx as jax2onnx
