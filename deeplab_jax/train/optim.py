"""SGD with momentum under the poly schedule, as the DeepLab papers train (arXiv:1706.05587, section 4.1)."""

from typing import Any

import jax
import optax

from deeplab_jax.config import TrainConfig


def make_schedule(config: TrainConfig) -> optax.Schedule:
    """learning_rate * (1 - step / steps) ** poly_power."""
    return optax.polynomial_schedule(config.learning_rate, 0.0, config.poly_power, config.steps)


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    decay = optax.add_decayed_weights(config.weight_decay, mask=kernels)
    return optax.chain(decay, optax.sgd(make_schedule(config), momentum=config.momentum))


def kernels(params: Any) -> Any:
    """True for convolution kernels: norms and biases are not decayed."""
    return jax.tree.map(lambda array: array.ndim > 1, params)
