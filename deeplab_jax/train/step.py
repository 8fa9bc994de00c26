"""One step of training and of validation: pure functions of their arguments, jitted over the mesh."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Int

from deeplab_jax.config import Experiment, OptimConfig
from deeplab_jax.data.augment import augment, normalize
from deeplab_jax.errors import InputError
from deeplab_jax.models import DeepLab, build_model
from deeplab_jax.models.layers import SAVED_ACTIVATION
from deeplab_jax.models.state import abstract_model
from deeplab_jax.train.losses import gather_true_class, make_loss, mask_ignored, most_probable, of_all_classes
from deeplab_jax.train.optimizer import grad_norm, make_lr_schedule, make_optimizer
from deeplab_jax.train.sharding import Shardings
from deeplab_jax.train.warm_start import load_init

SHOWN = 4  # images of a validation that are drawn


class TrainState(NamedTuple):
    """All that a step reads and changes. What is random in step n follows from the seed and n."""

    step: Int[Array, ""]
    params: nnx.State
    batch_stats: nnx.State  # BatchNorm's running statistics
    opt_state: Any
    ema: tuple[nnx.State, nnx.State] | None  # of params and batch_stats, where the experiment wants it


def init_state(config: Experiment, shardings: Shardings) -> tuple[nnx.GraphDef, TrainState]:
    """The model's structure, and the state before the first step."""
    optimizer = make_optimizer(config.optim, config.train.steps)
    abstract = abstract_model(config.model)
    freeze_statistics(abstract, config.optim)
    graph = nnx.split(abstract, nnx.Param, nnx.BatchStat)[0]

    # It runs once: on CPUs, making it fast takes far longer than running it.
    quickly = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None

    @partial(jax.jit, out_shardings=shardings.state, compiler_options=quickly)
    def init() -> TrainState:
        model = build_model(config.model, rngs=nnx.Rngs(config.train.seed))
        _, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
        ema = (params, batch_stats) if config.optim.ema_decay else None
        return TrainState(jnp.array(0), params, batch_stats, optimizer.init(params), ema)

    return graph, init()


def freeze_statistics(model: DeepLab, config: OptimConfig) -> None:
    """BatchNorm of what is frozen uses its running statistics, in training too."""
    for path, module in nnx.iter_modules(model):
        if isinstance(module, nnx.BatchNorm) and (
            config.freeze_norms or (config.freeze_encoder and path[0] == "encoder")
        ):
            module.use_running_average = True


def init_from_package(
    config: Experiment, graph: nnx.GraphDef, state: TrainState, class_names: Sequence[str], shardings: Shardings
) -> tuple[TrainState, list[str]]:
    """The state before the first step with a package's weights; and the names of the tensors it did not give."""
    model = nnx.merge(graph, state.params, state.batch_stats, copy=True)
    left = load_init(model, config.init, class_names)
    _, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    params, batch_stats = jax.device_put((params, batch_stats), shardings.state)
    ema = jax.tree.map(jnp.copy, (params, batch_stats)) if state.ema else None
    return state._replace(params=params, batch_stats=batch_stats, ema=ema), left


def make_train_step(config: Experiment, graph: nnx.GraphDef, shardings: Shardings) -> Callable:
    """(state, batch) -> (state, metrics); the state is donated.

    The metrics are scalars: `loss`, `grad_norm` before clipping, and `lr`, which the weights outside the encoder get.
    """
    optimizer = make_optimizer(config.optim, config.train.steps)
    accumulate = config.optim.grad_accum_steps
    lr_schedule = make_lr_schedule(config.optim, config.train.steps // accumulate)
    loss_between = make_loss(config.loss)
    dtype = jnp.dtype(config.train.precision)
    replicated, sharded = shardings.state, shardings.batch

    @partial(jax.jit, donate_argnums=0, in_shardings=(replicated, sharded), out_shardings=(replicated, replicated))
    def train_step(state: TrainState, batch: dict[str, Array]) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(config.train.seed), state.step)
        augment_key, dropout_key = jax.random.split(key)
        images, ids = augment(augment_key, batch["image"], batch["mask"], config.augment, config.preprocess)
        images, ids = (jax.lax.with_sharding_constraint(array, shardings.rows) for array in (images, ids))

        def loss_of(params: nnx.State) -> tuple[Array, nnx.State]:
            model = nnx.merge(graph, kernels_in(dtype, params), state.batch_stats, copy=True)
            rngs = nnx.Rngs(dropout=dropout_key)
            if config.model.aux_head:
                logits, auxiliary = model.with_auxiliary(images.astype(dtype), rngs=rngs)
                loss = loss_between(logits, ids) + config.loss.auxiliary * loss_between(auxiliary, ids)
            else:
                loss = loss_between(model(images.astype(dtype), rngs=rngs), ids)
            return loss, nnx.state(model, nnx.BatchStat)

        if config.train.remat:
            loss_of = saving_activations_only(loss_of)
        (loss, batch_stats), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        ema = update_ema(state, (params, batch_stats), config.optim.ema_decay) if state.ema else None
        lr = jnp.asarray(lr_schedule(state.step // accumulate), jnp.float32)
        metrics = {"loss": loss, "lr": lr, "grad_norm": grad_norm(gradients, config.optim)}
        return TrainState(state.step + 1, params, batch_stats, opt_state, ema), metrics

    return train_step


def saving_activations_only(function: Callable) -> Callable:
    """Computes again, in the backward pass, all but the features between the encoder's blocks."""
    return jax.checkpoint(function, policy=jax.checkpoint_policies.save_only_these_names(SAVED_ACTIVATION))


def kernels_in(dtype: jnp.dtype, params: nnx.State) -> nnx.State:
    """The convolution kernels in another type; norms and biases as they are."""
    return jax.tree.map(lambda array: array.astype(dtype) if array.ndim > 1 else array, params)


def update_ema(state: TrainState, new: tuple[nnx.State, nnx.State], decay: float) -> Any:
    """Faster at first, lest the random weights of the start stay in it for long."""
    keep = jnp.minimum(decay, (1 + state.step) / (10 + state.step))
    return jax.tree.map(lambda old, now: keep * old + (1 - keep) * now, state.ema, new)


def make_eval_step(config: Experiment, graph: nnx.GraphDef, shardings: Shardings) -> Callable:
    """(state, batch) -> sums over the batch's valid pixels.

    `confusion` (classes, classes) truth by prediction, `loss` the cross-entropy, and `pixels` how many there are; and
    `maps`, the most probable classes of the first few images.
    """
    classes = max(config.model.num_classes, 2)  # one logit tells a class from background

    @partial(jax.jit, in_shardings=(shardings.state, shardings.batch), out_shardings=shardings.state)
    def eval_step(state: TrainState, batch: dict[str, Array]) -> dict[str, Array]:
        images = normalize(batch["image"].astype(jnp.float32) / 255, config.preprocess)
        images = jax.lax.with_sharding_constraint(images, shardings.rows)
        logits, truth = eval_model(graph, state)(images), batch["mask"].astype(jnp.int32)
        valid, chosen = mask_ignored(truth)
        maps = most_probable(logits)
        index = jnp.where(valid, chosen * classes + maps, classes**2)
        confusion = jnp.bincount(index.ravel(), length=classes**2 + 1)[:-1].reshape(classes, classes)
        losses = -gather_true_class(jax.nn.log_softmax(of_all_classes(logits)), chosen)
        return {
            "confusion": confusion,
            "loss": jnp.where(valid, losses, 0).sum(),
            "pixels": valid.sum(),
            "maps": maps[:SHOWN].astype(jnp.uint8),
        }

    return eval_step


@jax.jit
def is_finite(state: TrainState) -> Array:
    """Whether every weight, statistic and moment is a number."""
    parts = (state.params, state.batch_stats, state.opt_state)
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(parts)]).all()


def stays_finite(losses: Sequence[Any], state: TrainState) -> bool:
    """Whether the losses of the last steps and all that they made of the state are numbers."""
    return bool(np.isfinite(losses).all() and is_finite(state))


def check_stays_finite(step: int, losses: Sequence[Any], state: TrainState) -> None:
    """Raises InputError where the run has gone astray; what is saved is older."""
    if not stays_finite(losses, state):
        raise InputError(
            f"the loss or a weight is not finite by step {step}; begin again in another --out with a lower "
            "optim.lr, from random weights or from the package so far (init.package)"
        )


def eval_model(graph: nnx.GraphDef, state: TrainState) -> DeepLab:
    """The model in evaluation mode with the weights of this moment, or their moving average."""
    model = nnx.merge(graph, *(state.ema or (state.params, state.batch_stats)), copy=True)
    model.eval()
    return model
