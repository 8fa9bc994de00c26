"""Losses in float32 over the pixels that have a label. Each is 0, with gradient 0, where there is none.

What an image adds is found within that image: sorting and ranking never gather a batch that is split over devices.

A model of one logit tells class 1 from class 0, the background, by a sigmoid. A softmax over that logit and a zero for
the background is the same, so such logits are made two; where the usual loss of a sigmoid is another one, its function
says so.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

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
        (config.lovasz, lovasz),
    ]

    def loss(logits: Logits, ids: Ids) -> Scalar:
        logits = logits.astype(jnp.float32)
        return sum((weight * term(logits, ids) for weight, term in terms if weight), jnp.zeros(()))

    return loss


def cross_entropy(logits: Logits, ids: Ids, config: LossConfig) -> Scalar:
    """Mean over the valid pixels of the batch, each weighted by its class; smoothed as PyTorch smooths.

    With `ohem_fraction` below 1, of every image only that share of its valid pixels counts, those of largest loss. Of
    one logit it is the binary cross-entropy, and as with PyTorch's `pos_weight` the mean does not count the weights.
    """
    valid, chosen = mask_ignored(ids)
    one, logits = logits.shape[-1] == 1, of_all_classes(logits)
    log_probabilities = jax.nn.log_softmax(logits)
    weights = class_weights(config, logits.shape[-1])
    weight = jnp.where(valid, weights[chosen], 0)
    losses = -weight * gather_true_class(log_probabilities, chosen)
    if smoothing := config.label_smoothing:
        everywhere = -(log_probabilities @ weights) / logits.shape[-1]
        losses = jnp.where(valid, (1 - smoothing) * losses + smoothing * everywhere, 0)
    counted = valid.astype(jnp.float32) if one else weight
    if config.ohem_fraction < 1:
        hard = hardest(losses, valid, config.ohem_fraction)
        losses, counted = losses * hard, counted * hard
    return safe_divide(losses.sum(), counted.sum())


def focal(logits: Logits, ids: Ids, config: LossConfig) -> Scalar:
    """Cross-entropy times (1 - p) ** gamma, p of the true class (arXiv:1708.02002, over a softmax); mean over the valid
    pixels."""
    valid, chosen = mask_ignored(ids)
    logits = of_all_classes(logits)
    log_p = gather_true_class(jax.nn.log_softmax(logits), chosen)
    weight = jnp.where(valid, class_weights(config, logits.shape[-1])[chosen], 0)
    # 1 - p, bounded: its power has no finite gradient at 0 where gamma is below 1.
    wrong = jnp.maximum(-jnp.expm1(log_p), 1e-6)
    return safe_divide((-weight * wrong**config.focal_gamma * log_p).sum(), valid.sum())


def dice(logits: Logits, ids: Ids) -> Scalar:
    """1 - Dice coefficient (arXiv:1606.04797) of softmax probabilities over the batch; mean over all classes, of which
    those that do not occur add 0. Of one logit it is that of the foreground alone."""
    valid, chosen = mask_ignored(ids)
    one, logits = logits.shape[-1] == 1, of_all_classes(logits)
    probabilities = jnp.where(valid[..., None], jax.nn.softmax(logits), 0)
    truth = jnp.where(valid[..., None], jax.nn.one_hot(chosen, logits.shape[-1]), 0)
    overlap, sizes = ((probabilities * truth).sum((0, 1, 2)), (probabilities + truth).sum((0, 1, 2)))
    occurs = truth.sum((0, 1, 2)) > 0
    losses = jnp.where(occurs, 1 - 2 * overlap / jnp.maximum(sizes, 1e-7), 0)
    return losses[1] if one else losses.mean()


def lovasz(logits: Logits, ids: Ids) -> Scalar:
    """Of one logit the Lovász hinge, of more the Lovász softmax (arXiv:1705.08790)."""
    return lovasz_hinge(logits[..., 0], ids) if logits.shape[-1] == 1 else lovasz_softmax(logits, ids)


def lovasz_hinge(logits: Float[Array, "b h w"], ids: Ids) -> Scalar:
    """The Lovász extension of the foreground's Jaccard loss, of hinges on the logits; mean over the images."""
    valid, _ = mask_ignored(ids)

    def of_image(logits: Float[Array, "h w"], truth: Int[Array, "h w"], valid: Bool[Array, "h w"]) -> Scalar:
        foreground = (truth == 1).astype(jnp.float32)
        errors = jnp.where(valid, jax.nn.relu(1 - logits * (2 * foreground - 1)), 0)
        return lovasz_extension(errors.ravel(), foreground.ravel())

    return jax.vmap(of_image)(logits, ids, valid).mean()


def lovasz_softmax(logits: Logits, ids: Ids) -> Scalar:
    """The Lovász extension of the Jaccard loss (arXiv:1705.08790), of every image over the classes that occur in it;
    mean over the images."""
    valid, _ = mask_ignored(ids)
    probabilities = jax.nn.softmax(logits)

    def of_class(id: Int[Array, ""], p: Float[Array, "n"], truth: Int[Array, "n"], valid: Bool[Array, "n"]):
        foreground = jnp.where(valid, truth == id, False).astype(jnp.float32)
        errors = jnp.where(valid, jnp.abs(foreground - p), 0)
        return lovasz_extension(errors, foreground), foreground.max()

    def of_image(p: Float[Array, "h w classes"], truth: Int[Array, "h w"], valid: Bool[Array, "h w"]) -> Scalar:
        columns = p.reshape(-1, p.shape[-1]).T
        classes = jnp.arange(p.shape[-1])
        # Class by class, so that memory does not grow with their number.
        losses, occurs = jax.lax.map(lambda c: of_class(c[0], c[1], truth.ravel(), valid.ravel()), (classes, columns))
        return safe_divide((losses * occurs).sum(), occurs.sum())

    return jax.vmap(of_image)(probabilities, ids, valid).mean()


def lovasz_extension(errors: Float[Array, "n"], foreground: Float[Array, "n"]) -> Scalar:
    """Of the Jaccard loss, at errors from 0 on; those of 0 come last and add nothing."""
    order = jnp.argsort(-jax.lax.stop_gradient(errors))
    return errors[order] @ jaccard_steps(foreground[order])


def jaccard_steps(foreground: Float[Array, "n"]) -> Float[Array, "n"]:
    """How much the Jaccard loss grows with each further wrong pixel, in the order given."""
    total = foreground.sum()
    intersection = total - jnp.cumsum(foreground)
    union = total + jnp.cumsum(1 - foreground)
    jaccard = 1 - intersection / jnp.maximum(union, 1)
    return jnp.diff(jaccard, prepend=0.0)


def hardest(losses: Float[Array, "b h w"], valid: Bool[Array, "b h w"], share: float) -> Float[Array, "b h w"]:
    """1 for the pixels of every image whose loss is among the largest, that share of the valid ones, rounded up.

    Pixels with the smallest loss of these share what is left evenly: certain pixels all have a loss of 0.
    """
    flat = jax.lax.stop_gradient(jnp.where(valid, losses, -1).reshape(len(losses), -1))
    count = jnp.ceil(share * valid.sum((1, 2)).astype(jnp.float32)).astype(int)
    smallest = jnp.take_along_axis(-jnp.sort(-flat), jnp.maximum(count - 1, 0)[:, None], 1)  # b 1
    above, level = flat > smallest, flat == smallest
    left = (count - above.sum(1)) / jnp.maximum(level.sum(1), 1)
    counts = jnp.where(above, 1.0, jnp.where(level, left[:, None], 0.0))
    return jnp.where(valid, counts.reshape(losses.shape), 0.0)


def of_all_classes(logits: Logits) -> Float[Array, "b h w all"]:
    """The logits; of one alone also the background's, 0."""
    return logits if logits.shape[-1] > 1 else jnp.concatenate([jnp.zeros_like(logits), logits], -1)


def most_probable(logits: Logits) -> Ids:
    """The class of every pixel; of one logit the foreground where its sigmoid is 0.5 or more."""
    return (logits[..., 0] >= 0).astype(int) if logits.shape[-1] == 1 else logits.argmax(-1)


def class_weights(config: LossConfig, classes: int) -> Float[Array, "classes"]:
    """One alone is the foreground's, beside 1 for the background."""
    weights = (1.0, *config.class_weights) if len(config.class_weights) == 1 else config.class_weights
    return jnp.asarray(weights or np.ones(classes), jnp.float32)


def mask_ignored(ids: Ids) -> tuple[Bool[Array, "b h w"], Ids]:
    """Where there is a label, and ids that can index everywhere."""
    valid = ids != IGNORE
    return valid, jnp.where(valid, ids, 0)


def gather_true_class(values: Logits, ids: Ids) -> Float[Array, "b h w"]:
    return jnp.take_along_axis(values, ids[..., None], -1)[..., 0]


def safe_divide(total: Scalar, count: Shaped[Array, ""]) -> Scalar:
    """0 where there is nothing to divide by."""
    return jnp.where(count > 0, total / jnp.where(count > 0, count, 1).astype(total.dtype), 0)
