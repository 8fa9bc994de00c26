"""Gradients to updates: by default SGD under the poly schedule, as the papers train (arXiv:1706.05587, section 4.1)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from deeplab_jax.config import OptimConfig


def make_lr_schedule(config: OptimConfig, updates: int) -> optax.Schedule:
    """The learning rate of every update: a linear warm-up, then down to 0 over the rest."""
    after = max(updates - config.warmup, 1)
    falling = {
        "poly": optax.polynomial_schedule(config.lr, 0.0, config.poly_power, after),
        "cosine": optax.cosine_decay_schedule(config.lr, after),
        "constant": optax.constant_schedule(config.lr),
    }[config.schedule]
    if not config.warmup:
        return falling
    rising = optax.linear_schedule(config.lr / config.warmup, config.lr, config.warmup - 1)
    return optax.join_schedules([rising, falling], [config.warmup])


def make_optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """Of a run of that many steps."""
    # An update is made every `accumulate` steps.
    schedule = make_lr_schedule(config, steps // config.grad_accum_steps)
    decay = [optax.add_decayed_weights(config.weight_decay, mask=kernels)] if config.weight_decay else []
    frozen = [optax.masked(optax.set_to_zero(), lambda params: is_frozen(params, config))]
    direction = optax.trace(config.momentum) if config.optimizer == "sgd" else optax.scale_by_adam()
    decoupled = config.optimizer == "adamw"
    optimizer = optax.chain(
        *frozen,
        *([optax.clip_by_global_norm(config.grad_clip_norm)] if config.grad_clip_norm else []),
        *([] if decoupled else decay),
        direction,
        *(decay if decoupled else []),
        optax.scale_by_learning_rate(schedule),
        optax.masked(optax.scale(config.encoder_lr_scale), encoder),
        *frozen,
    )
    if config.grad_accum_steps > 1:
        optimizer = optax.MultiSteps(optimizer, config.grad_accum_steps).gradient_transformation()
    return promoting(optimizer)


def promoting(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same where JAX promotes no types by itself: optax's Adam and MultiSteps mix int32 and float32."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):
            return optimizer.update(updates, state, params)

    return optax.GradientTransformation(optimizer.init, update)


def grad_norm(gradients: Any, config: OptimConfig) -> Float[Array, ""]:
    """Of the gradients of all weights that are not frozen, as one vector, before they are clipped."""
    frozen = jax.tree.leaves(is_frozen(gradients, config))
    free = [leaf for leaf, still in zip(jax.tree.leaves(gradients), frozen, strict=True) if not still]
    return jnp.sqrt(sum((jnp.square(leaf).sum() for leaf in free), jnp.zeros(())))


def kernels(params: Any) -> Any:
    """True for convolution kernels: norms and biases are not decayed."""
    return jax.tree.map(lambda array: array.ndim > 1, params)


def encoder(params: Any) -> Any:
    return by_path(params, lambda path: path[0] == "encoder")


def is_frozen(params: Any, config: OptimConfig) -> Any:
    """True for what stays as it is: the encoder, or scale and bias of every BatchNorm."""

    def frozen(path: list[Any]) -> bool:
        norm = any("norm" in str(step) for step in path[:-1])
        return (config.freeze_encoder and path[0] == "encoder") or (config.freeze_norms and norm)

    return by_path(params, frozen)


def by_path(params: Any, test: Callable[[list[Any]], bool]) -> Any:
    """`test` of the attribute names and list indices that lead to every array."""
    return jax.tree.map_with_path(lambda path, _: test([step.key for step in path if hasattr(step, "key")]), params)
