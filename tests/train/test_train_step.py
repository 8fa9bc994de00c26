"""One step of training and of validation, on one device and on many."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from deeplab_jax.config import IGNORE, DataConfig, LossConfig, OptimConfig, PreprocessConfig
from deeplab_jax.data.augment import augment, normalize
from deeplab_jax.data.formats import open_dataset
from deeplab_jax.data.loader import eval_batches, train_batches
from deeplab_jax.errors import InputError
from deeplab_jax.evaluate.metrics import scores
from deeplab_jax.models.state import abstract_model, to_arrays
from deeplab_jax.train.loop import train
from deeplab_jax.train.losses import cross_entropy
from deeplab_jax.train.sharding import check_fit, make_shardings, put
from deeplab_jax.train.step import (
    eval_model,
    freeze_statistics,
    init_state,
    make_eval_step,
    make_train_step,
    saving_activations_only,
)
from deeplab_jax.train.tracking.tracker import read_records
from helpers.fixtures import changed

ONE = jax.devices()[:1]


def run_steps(experiment, devices, steps=5):
    """Losses and the state after a few steps on these devices."""
    shardings = make_shardings(devices, experiment.train.spatial_shards)
    dataset = open_dataset(experiment.data.root, "folder", "train")
    graph, state = init_state(experiment, shardings)
    step, losses = make_train_step(experiment, graph, shardings), []
    for batch in train_batches(dataset, experiment.preprocess, 8, range(steps), 0, DataConfig()):
        state, metrics = step(state, put(batch, shardings))
        losses.append(float(metrics["loss"]))
    return losses, state


def gentle(experiment):
    return replace(experiment, optim=OptimConfig(lr=0.01), augment=replace(experiment.augment, crop=(96, 96)))


@pytest.mark.slow
def test_one_device_and_eight_train_alike(tiny_experiment):
    """BatchNorm sees the whole batch wherever it lies: losses, weights and statistics agree; also where two devices
    share every image.

    Statistics of each device's own image would give another loss in the very first step. Crops are not too small and
    steps not too long here, lest the one ReLU in a million that lies within rounding of zero show.
    """
    assert len(jax.devices()) == 8
    experiment = gentle(tiny_experiment)
    losses_1, state_1 = run_steps(experiment, ONE)
    assert len(set(losses_1)) == 5
    for space in (1, 2):
        losses_8, state_8 = run_steps(changed(experiment, spatial_shards=space), jax.devices())
        np.testing.assert_allclose(losses_1, losses_8, rtol=1e-4)
        for part in ("params", "batch_stats"):
            for one, eight in zip(*(jax.tree.leaves(getattr(s, part)) for s in (state_1, state_8)), strict=True):
                np.testing.assert_allclose(one, eight, rtol=0, atol=1e-4 * np.abs(one).max())


def test_the_step_changes_everything_it_should(tiny_experiment):
    _, before = init_state(tiny_experiment, make_shardings())
    before = jax.tree.map(np.array, before)
    _, after = run_steps(tiny_experiment, None, steps=1)
    assert int(after.step) == 1
    for part in ("params", "batch_stats"):
        for old, new in zip(*(jax.tree.leaves(getattr(s, part)) for s in (before, after)), strict=True):
            assert not np.array_equal(old, new)


@pytest.mark.slow
def test_a_step_exchanges_gradients_and_sums_of_batchnorm_alone(tiny_experiment):
    """Read off the compiled program of eight devices: every gradient is added up once, no image or feature moves."""
    shardings = make_shardings()
    graph, state = init_state(tiny_experiment, shardings)
    batch = {"image": np.zeros((8, 48, 48, 3), np.uint8), "mask": np.zeros((8, 48, 48), np.uint8)}
    step = make_train_step(tiny_experiment, graph, shardings)
    program = step.lower(state, put(batch, shardings)).compile().as_text()
    assert not re.findall(r"(all-gather|all-to-all|collective-permute|collective-broadcast)(?:-start)?\(", program)
    reduced = re.findall(r"= (.*?) all-reduce(?:-start)?\(", program)
    shapes = [shape.split(",") for result in reduced for shape in re.findall(r"f32\[([\d,]*)\]", result)]
    numbers = sum(int(np.prod([int(side) for side in shape if side])) for shape in shapes)
    gradients = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    statistics = sum(leaf.size for leaf in jax.tree.leaves(state.batch_stats))
    # BatchNorm adds up two sums forward and two backward of every channel, and its own gradients; there are few others.
    assert gradients <= numbers <= gradients + 2 * statistics + 20


@pytest.mark.slow
def test_images_shared_by_devices_exchange_rows_not_batches(tiny_experiment):
    """Convolutions and the resizing of logits need some of the other's rows; a batch of images is more than these."""
    experiment = changed(gentle(tiny_experiment), spatial_shards=2)
    shardings = make_shardings(spatial_shards=2)
    graph, state = init_state(experiment, shardings)
    batch = {"image": np.zeros((8, 48, 48, 3), np.uint8), "mask": np.zeros((8, 48, 48), np.uint8)}
    step = make_train_step(experiment, graph, shardings)
    program = step.lower(state, put(batch, shardings)).compile().as_text()
    gathered = re.findall(r"= (.*?) (?:all-gather|all-to-all|collective-broadcast)(?:-start)?\(", program)
    sizes = [
        int(np.prod([int(side) for side in shape.split(",") if side]))
        for result in gathered
        for shape in re.findall(r"\w+\[([\d,]*)\]", result)
    ]
    assert max(sizes, default=0) < np.prod((8, *experiment.augment.crop, 3))
    assert "collective-permute" in program


@pytest.mark.slow
def test_the_auxiliary_loss_weighs_as_much_as_it_should(tiny_experiment):
    """The loss of the first step, computed again without the step."""
    graph, state = init_state(tiny_experiment, make_shardings(ONE))
    dataset = open_dataset(tiny_experiment.data.root, "folder", "train")
    (batch,) = train_batches(dataset, tiny_experiment.preprocess, 8, range(1), 0, DataConfig())
    unchanged, masks = (jnp.asarray(batch[name]) for name in ("image", "mask"))

    @jax.jit
    def both() -> list[jax.Array]:
        augment_key, dropout_key = jax.random.split(jax.random.fold_in(jax.random.key(0), 0))
        images, ids = augment(augment_key, unchanged, masks, tiny_experiment.augment, tiny_experiment.preprocess)
        model = nnx.merge(graph, state.params, state.batch_stats, copy=True)
        outputs = model.with_auxiliary(images, rngs=nnx.Rngs(dropout=dropout_key))
        return [cross_entropy(logits, ids, LossConfig()) for logits in outputs]

    main, auxiliary = map(float, both())
    (loss,), _ = run_steps(tiny_experiment, ONE, steps=1)
    assert loss == pytest.approx(main + 0.4 * auxiliary, rel=1e-4)


@pytest.mark.slow
def test_learning_rate_and_gradient_norm_are_those_of_the_step(tiny_experiment, tmp_path):
    """Beside the loss in metrics.jsonl: the rate of the update that a step is part of, and the norm of the gradient
    before it is clipped, without what is frozen."""
    optim = OptimConfig(lr=0.05, warmup=2, freeze_encoder=True, grad_clip_norm=0.01, grad_accum_steps=2)
    experiment = replace(changed(tiny_experiment, steps=8), optim=optim)
    train(experiment, tmp_path)
    records = [record for record in read_records(tmp_path) if record["split"] == "train"]
    falling = optax.polynomial_schedule(0.05, 0.0, 0.9, 2)
    rates = [0.025, 0.05, float(falling(0)), float(falling(1))]
    assert [record["lr"] for record in records] == pytest.approx([rate for rate in rates for _ in range(2)])

    graph, state = init_state(experiment, make_shardings(ONE))
    dataset = open_dataset(experiment.data.root, "folder", "train")
    (batch,) = train_batches(dataset, experiment.preprocess, 8, range(1), 0, DataConfig())
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(jax.random.key(0), 0))
    images, ids = augment(
        augment_key, jnp.asarray(batch["image"]), jnp.asarray(batch["mask"]), experiment.augment, experiment.preprocess
    )

    @jax.jit
    @jax.grad
    def gradient(params: nnx.State) -> jax.Array:
        model = nnx.merge(graph, params, state.batch_stats, copy=True)
        main, auxiliary = model.with_auxiliary(images, rngs=nnx.Rngs(dropout=dropout_key))
        return cross_entropy(main, ids, LossConfig()) + 0.4 * cross_entropy(auxiliary, ids, LossConfig())

    squares = {
        path: float(np.square(np.asarray(leaf, np.float64)).sum())
        for path, leaf in nnx.to_flat_state(gradient(state.params))
    }
    norm = np.sqrt(sum(square for path, square in squares.items() if path[0] != "encoder"))
    assert records[0]["grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert norm > 0.1  # it would be clipped
    assert np.sqrt(sum(squares.values())) > 1.01 * norm


@pytest.mark.slow
def test_frozen_parts_stay_as_they_are(tiny_experiment):
    frozen = replace(tiny_experiment.optim, freeze_encoder=True, freeze_norms=True)
    experiment = replace(tiny_experiment, optim=frozen)
    graph, state = init_state(experiment, make_shardings(ONE))
    before = to_arrays(eval_model(graph, state))
    after = to_arrays(eval_model(graph, run_steps(experiment, ONE, steps=2)[1]))
    for name in before:
        still = name.startswith("encoder.") or any(part.startswith("norm") for part in name.split("."))
        assert np.array_equal(before[name], after[name]) == still, name
    only_encoder = abstract_model(experiment.model)
    freeze_statistics(only_encoder, OptimConfig(freeze_encoder=True))
    for path, module in nnx.iter_modules(only_encoder):
        if isinstance(module, nnx.BatchNorm):
            assert module.use_running_average == (path[0] == "encoder")


@pytest.mark.slow
def test_the_average_of_weights_is_what_is_evaluated(tiny_experiment):
    experiment = replace(tiny_experiment, optim=replace(tiny_experiment.optim, ema_decay=0.9))
    shardings = make_shardings(ONE)
    graph, state = init_state(experiment, shardings)
    step, expected = make_train_step(experiment, graph, shardings), to_arrays(eval_model(graph, state))
    dataset = open_dataset(experiment.data.root, "folder", "train")
    for number, batch in enumerate(train_batches(dataset, experiment.preprocess, 8, range(3), 0, DataConfig())):
        state, _ = step(state, put(batch, shardings))
        now = to_arrays(eval_model(graph, state._replace(ema=None)))
        keep = min(0.9, (1 + number) / (10 + number))
        expected = {name: keep * expected[name] + (1 - keep) * now[name] for name in now}
    actual = to_arrays(eval_model(graph, state))
    for name in actual:
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-5, atol=1e-6)
        assert not np.array_equal(actual[name], now[name]), name


@pytest.mark.slow
def test_bfloat16_trains_nearly_alike_with_float32_weights_and_statistics(tiny_experiment):
    losses, _ = run_steps(tiny_experiment, ONE)
    rounded, state = run_steps(changed(tiny_experiment, precision="bfloat16"), ONE)
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, state.batch_stats))} == {jnp.dtype("float32")}
    np.testing.assert_allclose(rounded, losses, rtol=0.05)  # bfloat16 has 8 bits
    assert rounded != losses


@pytest.mark.slow
def test_rematerializing_changes_no_loss_and_keeps_less(tiny_experiment):
    """What is kept is measured as the size of what the backward pass is given; compilers for CPUs undo the rest."""
    losses, _ = run_steps(tiny_experiment, ONE)
    again, _ = run_steps(changed(tiny_experiment, remat=True), ONE)
    np.testing.assert_allclose(again, losses, rtol=1e-5)

    def kept_bytes(remat: bool) -> int:
        graph, state = init_state(tiny_experiment, make_shardings(ONE))
        images = jnp.zeros((2, 64, 64, 3))

        def loss(params):
            model = nnx.merge(graph, params, state.batch_stats, copy=True)
            return model(images).sum()

        if remat:
            loss = saving_activations_only(loss)
        backward = jax.eval_shape(lambda params: jax.vjp(loss, params)[1], state.params)
        sizes = {name: leaf.size * leaf.dtype.itemsize for name, leaf in enumerate(jax.tree.leaves(backward))}
        return sum(sizes.values()) - sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))

    assert kept_bytes(True) < 0.5 * kept_bytes(False)


def test_batches_and_crops_must_fit_the_devices(tiny_experiment):
    with pytest.raises(InputError, match="batch_size=30 must be a multiple of 8 devices; try 24"):
        check_fit(changed(tiny_experiment, batch_size=30), make_shardings())
    with pytest.raises(InputError, match="batch_size=30 must be a multiple of 4 groups of 2 devices; try 28"):
        check_fit(changed(tiny_experiment, batch_size=30), make_shardings(spatial_shards=2))
    odd = replace(tiny_experiment, augment=replace(tiny_experiment.augment, crop=(33, 32)))
    with pytest.raises(
        InputError, match=r"crop=\(33, 32\) must have a multiple of train.spatial_shards=2 rows; try 32"
    ):
        check_fit(odd, make_shardings(spatial_shards=2))
    with pytest.raises(InputError, match=r"train.spatial_shards=3 must divide the number of devices, 8"):
        make_shardings(spatial_shards=3)


def test_evaluation_step_leaves_void_out(tiny_experiment):
    shardings = make_shardings()
    graph, state = init_state(tiny_experiment, shardings)
    dataset = open_dataset(tiny_experiment.data.root, "folder", "val")
    (batch,) = eval_batches(dataset, PreprocessConfig(size=(48, 48)), 8, DataConfig())
    actual = make_eval_step(tiny_experiment, graph, shardings)(state, put(batch, shardings))
    confusion = np.asarray(actual["confusion"])
    truth = np.bincount(batch["mask"][batch["mask"] != IGNORE], minlength=5)
    np.testing.assert_array_equal(confusion.sum(1), truth)
    assert int(actual["pixels"]) == truth.sum()
    logits = eval_model(graph, state)(normalize(jnp.asarray(batch["image"]) / 255, tiny_experiment.preprocess))
    assert float(actual["loss"]) / int(actual["pixels"]) == pytest.approx(
        float(cross_entropy(logits, jnp.asarray(batch["mask"], jnp.int32), LossConfig())), rel=1e-5
    )
    assert 0 <= scores(confusion, dataset.classes.names, 5).miou <= 1
