"""Engines that run a package's network; one file each, of which only the one that is needed is imported."""

from collections.abc import Callable

import numpy as np

from deeplab_jax.array_types import Float32

NetworkInput = Float32[np.ndarray, "b channels h w"]
Logits = Float32[np.ndarray, "b k h2 w2"]
# From any thread. It splits and fills up batches as its engine needs them.
Backend = Callable[[NetworkInput], Logits]
