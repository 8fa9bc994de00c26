"""Losses in float32 over the pixels that have a label. Each is 0, with gradient 0, where there is none.

What a picture adds is found within that picture: sorting and ranking never gather a batch that is split over devices.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from deeplab_jax.config import IGNORE, LossConfig

Logits = Float[Array, "b h w classes"]
Ids = Int[Array, "b h w"]  # class ids, or IGNORE
Scalar = Float[Array, ""]


def make_loss(config: LossConfig) -> Callable[[Logits, Ids], Scalar]:
    """The sum of the terms that have a weight."""
    terms = [
        (config.cross_entropy, lambda logits, ids: cross_entropy(logits, ids, config)),
        (config.focal, lambda logits, ids: focal(logits, ids, config)),
        (config.dice, dice),
        (config.lovasz, lovasz_softmax),
    ]

    def loss(logits: Logits, ids: Ids) -> Scalar:
        logits = logits.astype(jnp.float32)
        return sum((weight * term(logits, ids) for weight, term in terms if weight), jnp.zeros(()))

    return loss


def cross_entropy(logits: Logits, ids: Ids, config: LossConfig) -> Scalar:
    """Mean over the valid pixels of the batch, each weighted by its class; smoothed as PyTorch smooths.

    With `hard_pixels` below 1, of every picture only that share of its valid pixels counts, those of largest loss.
    """
    valid, chosen = valid_and_chosen(ids)
    log_probabilities = jax.nn.log_softmax(logits)
    weights = class_weights(config, logits.shape[-1])
    weight = jnp.where(valid, weights[chosen], 0)
    losses = -weight * pick(log_probabilities, chosen)
    if smoothing := config.label_smoothing:
        everywhere = -(log_probabilities @ weights) / logits.shape[-1]
        losses = jnp.where(valid, (1 - smoothing) * losses + smoothing * everywhere, 0)
    if config.hard_pixels < 1:
        hard = hardest(losses, valid, config.hard_pixels)
        losses, weight = losses * hard, weight * hard
    return divide(losses.sum(), weight.sum())


def focal(logits: Logits, ids: Ids, config: LossConfig) -> Scalar:
    """Cross-entropy times (1 - p) ** gamma, p of the true class (arXiv:1708.02002, over a softmax); mean over the valid
    pixels."""
    valid, chosen = valid_and_chosen(ids)
    log_p = pick(jax.nn.log_softmax(logits), chosen)
    weight = jnp.where(valid, class_weights(config, logits.shape[-1])[chosen], 0)
    # 1 - p, bounded: its power has no finite gradient at 0 where gamma is below 1.
    wrong = jnp.maximum(-jnp.expm1(log_p), 1e-6)
    return divide((-weight * wrong**config.focal_gamma * log_p).sum(), valid.sum())


def dice(logits: Logits, ids: Ids) -> Scalar:
    """1 - Dice coefficient (arXiv:1606.04797) of softmax probabilities over the batch; mean over all classes, of which
    those that do not occur add 0."""
    valid, chosen = valid_and_chosen(ids)
    probabilities = jnp.where(valid[..., None], jax.nn.softmax(logits), 0)
    truth = jax.nn.one_hot(chosen, logits.shape[-1]) * valid[..., None]
    overlap, sizes = ((probabilities * truth).sum((0, 1, 2)), (probabilities + truth).sum((0, 1, 2)))
    occurs = truth.sum((0, 1, 2)) > 0
    return jnp.where(occurs, 1 - 2 * overlap / jnp.maximum(sizes, 1e-7), 0).mean()


def lovasz_softmax(logits: Logits, ids: Ids) -> Scalar:
    """The Lovász extension of the Jaccard loss (arXiv:1705.08790), of every picture over the classes that occur in it;
    mean over the pictures."""
    valid, _ = valid_and_chosen(ids)
    probabilities = jax.nn.softmax(logits)

    def of_class(id: Int[Array, ""], p: Float[Array, "n"], truth: Int[Array, "n"], valid: Bool[Array, "n"]):
        foreground = jnp.where(valid, truth == id, False).astype(jnp.float32)
        errors = jnp.where(valid, jnp.abs(foreground - p), 0)  # errors of 0 come last and add nothing
        order = jnp.argsort(-jax.lax.stop_gradient(errors))
        return errors[order] @ jaccard_steps(foreground[order]), foreground.max()

    def of_picture(p: Float[Array, "h w classes"], truth: Int[Array, "h w"], valid: Bool[Array, "h w"]) -> Scalar:
        columns = p.reshape(-1, p.shape[-1]).T
        classes = jnp.arange(p.shape[-1])
        # Class by class, so that memory does not grow with their number.
        losses, occurs = jax.lax.map(lambda c: of_class(c[0], c[1], truth.ravel(), valid.ravel()), (classes, columns))
        return divide((losses * occurs).sum(), occurs.sum())

    return jax.vmap(of_picture)(probabilities, ids, valid).mean()


def jaccard_steps(foreground: Float[Array, "n"]) -> Float[Array, "n"]:
    """How much the Jaccard loss grows with each further wrong pixel, in the order given."""
    total = foreground.sum()
    intersection = total - jnp.cumsum(foreground)
    union = total + jnp.cumsum(1 - foreground)
    jaccard = 1 - intersection / jnp.maximum(union, 1)
    return jnp.diff(jaccard, prepend=0.0)


def hardest(losses: Float[Array, "b h w"], valid: Bool[Array, "b h w"], share: float) -> Float[Array, "b h w"]:
    """1 for the pixels of every picture whose loss is among the largest, that share of the valid ones, rounded up.

    Pixels with the smallest loss of these share what is left evenly: certain pixels all have a loss of 0.
    """
    flat = jax.lax.stop_gradient(jnp.where(valid, losses, -1).reshape(len(losses), -1))
    count = jnp.ceil(share * valid.sum((1, 2))).astype(int)
    smallest = jnp.take_along_axis(-jnp.sort(-flat), jnp.maximum(count - 1, 0)[:, None], 1)  # b 1
    above, level = flat > smallest, flat == smallest
    left = (count - above.sum(1)) / jnp.maximum(level.sum(1), 1)
    return jnp.where(valid, (above + left[:, None] * level).reshape(losses.shape), 0.0)


def class_weights(config: LossConfig, classes: int) -> Float[Array, "classes"]:
    return jnp.asarray(config.class_weights or np.ones(classes), jnp.float32)


def valid_and_chosen(ids: Ids) -> tuple[Bool[Array, "b h w"], Ids]:
    """Where there is a label, and ids that can index everywhere."""
    valid = ids != IGNORE
    return valid, jnp.where(valid, ids, 0)


def pick(values: Logits, ids: Ids) -> Float[Array, "b h w"]:
    return jnp.take_along_axis(values, ids[..., None], -1)[..., 0]


def divide(total: Scalar, count: Array) -> Scalar:
    """0 where there is nothing to divide by."""
    return jnp.where(count > 0, total / jnp.where(count > 0, count, 1), 0)
