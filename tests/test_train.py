"""The step, the loop, and what a run leaves behind."""

import json
import re
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from conftest import changed
from deeplab_jax.config import IGNORE, DataConfig, LossConfig, OptimConfig, PreprocessConfig, TrainConfig, to_dict
from deeplab_jax.data.augment import augment, normalise
from deeplab_jax.data.formats import open_dataset
from deeplab_jax.data.pipeline import eval_batches, train_batches
from deeplab_jax.errors import InputError
from deeplab_jax.evaluate.evaluate import evaluate
from deeplab_jax.evaluate.metrics import scores
from deeplab_jax.inference.auto import AutoModel
from deeplab_jax.models.weights import abstract_model, to_arrays
from deeplab_jax.train import loop
from deeplab_jax.train.loop import train
from deeplab_jax.train.losses import cross_entropy
from deeplab_jax.train.mesh import check_fit, make_shardings, put
from deeplab_jax.train.run import open_run
from deeplab_jax.train.step import (
    eval_model,
    freeze_statistics,
    init_state,
    keeping_features_only,
    make_eval_step,
    make_train_step,
)
from deeplab_jax.train.track import Tracker, read_records

ONE = jax.devices()[:1]


def run_steps(experiment, devices, steps=5):
    """Losses and the state after a few steps on these devices."""
    shardings = make_shardings(devices, experiment.train.space)
    dataset = open_dataset(experiment.data.root, "folder", "train")
    graph, state = init_state(experiment, shardings)
    step, losses = make_train_step(experiment, graph, shardings), []
    for batch in train_batches(dataset, experiment.preprocess, 8, range(steps), 0, DataConfig()):
        state, metrics = step(state, put(batch, shardings))
        losses.append(float(metrics["loss"]))
    return losses, state


def gentle(experiment):
    return replace(
        experiment, optim=OptimConfig(learning_rate=0.01), augment=replace(experiment.augment, crop=(96, 96))
    )


def test_one_device_and_eight_train_alike(tiny_experiment):
    """BatchNorm sees the whole batch wherever it lies: losses, weights and statistics agree; also where two devices
    share every picture.

    Statistics of each device's own picture would give another loss in the very first step. Crops are not too small and
    steps not too long here, lest the one ReLU in a million that lies within rounding of zero show.
    """
    assert len(jax.devices()) == 8
    experiment = gentle(tiny_experiment)
    losses_1, state_1 = run_steps(experiment, ONE)
    assert len(set(losses_1)) == 5
    for space in (1, 2):
        losses_8, state_8 = run_steps(changed(experiment, space=space), jax.devices())
        np.testing.assert_allclose(losses_1, losses_8, rtol=1e-4)
        for part in ("params", "stats"):
            for one, eight in zip(*(jax.tree.leaves(getattr(s, part)) for s in (state_1, state_8)), strict=True):
                np.testing.assert_allclose(one, eight, rtol=0, atol=1e-4 * np.abs(one).max())


def test_the_step_changes_everything_it_should(tiny_experiment):
    _, before = init_state(tiny_experiment, make_shardings())
    before = jax.tree.map(np.array, before)
    _, after = run_steps(tiny_experiment, None, steps=1)
    assert int(after.step) == 1
    for part in ("params", "stats"):
        for old, new in zip(*(jax.tree.leaves(getattr(s, part)) for s in (before, after)), strict=True):
            assert not np.array_equal(old, new)


def test_a_step_exchanges_gradients_and_sums_of_batchnorm_alone(tiny_experiment):
    """Read off the compiled program of eight devices: every gradient is added up once, no picture or feature moves."""
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
    statistics = sum(leaf.size for leaf in jax.tree.leaves(state.stats))
    # BatchNorm adds up two sums forward and two backward of every channel, and its own gradients; there are few others.
    assert gradients <= numbers <= gradients + 2 * statistics + 20


def test_pictures_shared_by_devices_exchange_rows_not_batches(tiny_experiment):
    """Convolutions and the resizing of logits need some of the other's rows; a batch of pictures is more than these."""
    experiment = changed(gentle(tiny_experiment), space=2)
    shardings = make_shardings(space=2)
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


def test_the_auxiliary_loss_weighs_as_much_as_it_should(tiny_experiment):
    """The loss of the first step, computed again without the step."""
    graph, state = init_state(tiny_experiment, make_shardings(ONE))
    dataset = open_dataset(tiny_experiment.data.root, "folder", "train")
    (batch,) = train_batches(dataset, tiny_experiment.preprocess, 8, range(1), 0, DataConfig())
    pictures, masks = (jnp.asarray(batch[name]) for name in ("image", "mask"))
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(jax.random.key(0), 0))
    images, ids = augment(augment_key, pictures, masks, tiny_experiment.augment, tiny_experiment.preprocess)
    model = nnx.merge(graph, state.params, state.stats, copy=True)
    outputs = model.with_auxiliary(images, rngs=nnx.Rngs(dropout=dropout_key))
    main, auxiliary = (float(cross_entropy(logits, ids, LossConfig())) for logits in outputs)
    (loss,), _ = run_steps(tiny_experiment, ONE, steps=1)
    assert loss == pytest.approx(main + 0.4 * auxiliary, rel=1e-4)


def test_balance_weighs_classes_by_how_rare_they_are_in_the_training_set(tiny_experiment, tmp_path):
    class Stop(Exception):
        pass

    def stop(config, *_):
        raise Stop(config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_train_step", stop)
        with pytest.raises(Stop) as stopped:
            train(replace(tiny_experiment, loss=LossConfig(balance=True)), tmp_path / "run")
    masks = [np.asarray(Image.open(path)) for path in (tiny_experiment.data.root / "masks" / "train").iterdir()]
    frequencies = [
        sum((mask == i).sum() for mask in masks) / sum((mask != IGNORE).sum() for mask in masks if (mask == i).any())
        for i in range(5)
    ]
    expected = np.median(frequencies) / frequencies
    assert stopped.value.args[0].loss.class_weights == pytest.approx(expected.tolist())
    assert expected.max() > 2 * expected.min()


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


def test_the_average_of_weights_is_what_is_evaluated(tiny_experiment):
    experiment = replace(tiny_experiment, optim=replace(tiny_experiment.optim, average=0.9))
    shardings = make_shardings(ONE)
    graph, state = init_state(experiment, shardings)
    step, expected = make_train_step(experiment, graph, shardings), to_arrays(eval_model(graph, state))
    dataset = open_dataset(experiment.data.root, "folder", "train")
    for number, batch in enumerate(train_batches(dataset, experiment.preprocess, 8, range(3), 0, DataConfig())):
        state, _ = step(state, put(batch, shardings))
        now = to_arrays(eval_model(graph, state._replace(average=None)))
        keep = min(0.9, (1 + number) / (10 + number))
        expected = {name: keep * expected[name] + (1 - keep) * now[name] for name in now}
    found = to_arrays(eval_model(graph, state))
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)
        assert not np.array_equal(found[name], now[name]), name


def test_bfloat16_trains_nearly_alike_with_float32_weights_and_statistics(tiny_experiment):
    losses, _ = run_steps(tiny_experiment, ONE)
    rounded, state = run_steps(changed(tiny_experiment, precision="bfloat16"), ONE)
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, state.stats))} == {jnp.dtype("float32")}
    np.testing.assert_allclose(rounded, losses, rtol=0.05)  # bfloat16 has 8 bits
    assert rounded != losses


def test_rematerialising_changes_no_loss_and_keeps_less(tiny_experiment):
    """What is kept is measured as the size of what the backward pass is given; compilers for CPUs undo the rest."""
    losses, _ = run_steps(tiny_experiment, ONE)
    again, _ = run_steps(changed(tiny_experiment, rematerialise=True), ONE)
    np.testing.assert_allclose(again, losses, rtol=1e-5)

    def kept_bytes(rematerialise: bool) -> int:
        graph, state = init_state(tiny_experiment, make_shardings(ONE))
        images = jnp.zeros((2, 64, 64, 3))

        def loss(params):
            model = nnx.merge(graph, params, state.stats, copy=True)
            return model(images).sum()

        if rematerialise:
            loss = keeping_features_only(loss)
        backward = jax.eval_shape(lambda params: jax.vjp(loss, params)[1], state.params)
        sizes = {name: leaf.size * leaf.dtype.itemsize for name, leaf in enumerate(jax.tree.leaves(backward))}
        return sum(sizes.values()) - sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))

    assert kept_bytes(True) < 0.5 * kept_bytes(False)


def test_batches_and_crops_must_fit_the_devices(tiny_experiment):
    with pytest.raises(InputError, match="batch_size=30 must be a multiple of 8 devices; try 24"):
        check_fit(changed(tiny_experiment, batch_size=30), make_shardings())
    with pytest.raises(InputError, match="batch_size=30 must be a multiple of 4 groups of 2 devices; try 28"):
        check_fit(changed(tiny_experiment, batch_size=30), make_shardings(space=2))
    odd = replace(tiny_experiment, augment=replace(tiny_experiment.augment, crop=(33, 32)))
    with pytest.raises(InputError, match=r"crop=\(33, 32\) must have a multiple of train.space=2 rows; try 32"):
        check_fit(odd, make_shardings(space=2))
    with pytest.raises(InputError, match=r"train.space=3 must divide the number of devices, 8"):
        make_shardings(space=3)


def test_the_validation_step_equals_the_evaluation_of_the_package(tiny_experiment, tmp_path):
    """Same weights, two code paths: the jitted confusion matrix, and AutoModel at the pictures' own size."""
    experiment = changed(tiny_experiment, steps=2, validate_every=2, save_every=2)
    best = train(experiment, tmp_path / "run").best
    dataset = open_dataset(experiment.data.root, "folder", "val")
    result = evaluate(AutoModel.from_pretrained(tmp_path / "run" / "package"), dataset)
    assert result.miou == pytest.approx(best, abs=1e-6)
    assert result.images == 5


def test_evaluation_step_leaves_void_out(tiny_experiment):
    shardings = make_shardings()
    graph, state = init_state(tiny_experiment, shardings)
    dataset = open_dataset(tiny_experiment.data.root, "folder", "val")
    (batch,) = eval_batches(dataset, PreprocessConfig(size=(48, 48)), 8, DataConfig())
    found = make_eval_step(tiny_experiment, graph, shardings)(state, put(batch, shardings))
    confusion = np.asarray(found["confusion"])
    truth = np.bincount(batch["mask"][batch["mask"] != IGNORE], minlength=5)
    np.testing.assert_array_equal(confusion.sum(1), truth)
    assert int(found["pixels"]) == truth.sum()
    logits = eval_model(graph, state)(normalise(jnp.asarray(batch["image"]) / 255, tiny_experiment.preprocess))
    assert found["loss"] / found["pixels"] == pytest.approx(
        float(cross_entropy(logits, jnp.asarray(batch["mask"], jnp.int32), LossConfig())), rel=1e-5
    )
    assert 0 <= scores(confusion, dataset.classes.names, 5).miou <= 1


def test_run_folder(tiny_experiment, tmp_path):
    run = tmp_path / "run"
    train(tiny_experiment, run)
    assert {path.name.split(".")[0] for path in run.iterdir()} == {
        "", "checkpoints", "config", "curves", "events", "metrics", "package", "predictions",
    }  # fmt: skip
    records = read_records(run)
    assert [r["step"] for r in records if r["split"] == "train"] == list(range(1, 13))
    assert [r["step"] for r in records if r["split"] == "val"] == [6, 12]
    assert {"loss", "images_per_second"} < set(records[0])
    assert {"miou", "pixel_accuracy", "iou/disc"} < set(records[-1])


def test_another_run_in_the_folder_is_left_alone(tiny_experiment, tmp_path):
    run = tmp_path / "run"

    def open_and_close(experiment, folder=run):
        with open_run(experiment, folder):
            pass

    open_and_close(tiny_experiment)
    (run / "package").mkdir()
    with pytest.raises(InputError, match=r"run holds a run with train\.steps=12, not 13; choose another --out"):
        open_and_close(changed(tiny_experiment, steps=13))
    # What has no bearing on the weights may change; so may everything before there is anything to lose.
    elsewhere = DataConfig(tmp_path, "folder", threads=7, workers=2)
    open_and_close(replace(changed(tiny_experiment, log_every=7, patience=3), data=elsewhere))
    (run / "package").rmdir()
    open_and_close(changed(tiny_experiment, steps=13))
    (run / "config.json").write_text('{"architectures": ["Mine"]}')
    with pytest.raises(InputError, match="run exists and holds no run"):
        open_and_close(tiny_experiment)
    assert "Mine" in (run / "config.json").read_text()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="other exists and holds no run"):
        open_and_close(tiny_experiment, tmp_path / "other")


def test_a_folder_is_one_process_s_at_a_time(tiny_experiment, tmp_path):
    with (
        open_run(tiny_experiment, tmp_path),
        pytest.raises(InputError, match="another process is training in"),
        open_run(tiny_experiment, tmp_path),
    ):
        pass
    with open_run(tiny_experiment, tmp_path):
        pass


def test_class_count_must_fit_the_data(tiny_experiment, tmp_path):
    model = replace(tiny_experiment.model, num_classes=7)
    with pytest.raises(InputError, match="has 5 classes but the model 7; set num_classes=5"):
        train(replace(tiny_experiment, model=model), tmp_path / "run")
    root = shutil.copytree(tiny_experiment.data.root, tmp_path / "one")
    (root / "classes.txt").write_text("road")
    one = replace(
        tiny_experiment,
        model=replace(tiny_experiment.model, num_classes=1),
        data=replace(tiny_experiment.data, root=root),
    )
    with pytest.raises(InputError, match="has one class; segmentation needs two, such as background and road"):
        train(one, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_bad_mask_costs_no_step(tiny_experiment, tmp_path):
    """In the validation set it shows before the first step; in the training set the steps so far are kept."""
    experiment = changed(tiny_experiment, steps=200, save_every=200, validate_every=200)
    bad, run = np.full((48, 48), 9, np.uint8), tmp_path / "run"
    for split in ("val", "train"):
        root = shutil.copytree(tiny_experiment.data.root, tmp_path / split)
        data = replace(experiment.data, root=root)
        if split == "val":
            Image.fromarray(bad).save(root / "masks" / split / "2.png")
            with pytest.raises(InputError, match=r"masks/val/2\.png holds the value 9"):
                train(replace(experiment, data=data), run)
            assert not read_records(run)
    # Damaged between two runs, the validation set stops the second before it does a step or marks one as done.
    train(changed(tiny_experiment, steps=2, save_every=2, validate_every=2), tmp_path / "resumed")
    assert (tmp_path / "resumed" / "package").is_dir()
    broken = replace(changed(tiny_experiment, steps=2, save_every=2, validate_every=2), data=data)
    Image.fromarray(bad).save(root / "masks" / "val" / "2.png")
    with pytest.raises(InputError, match=r"masks/val/2\.png holds the value 9"):
        train(broken, tmp_path / "resumed")
    assert [path.name for path in (tmp_path / "resumed" / "checkpoints").iterdir()] == ["2"]
    shutil.copy(tiny_experiment.data.root / "masks" / "val" / "2.png", root / "masks" / "val" / "2.png")

    steps = iter(range(1, 200))

    def damage(self, step, figures):
        if next(steps) == 3:
            for number in range(12):
                Image.fromarray(bad).save(root / "masks" / "train" / f"{number}.png")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tracker, "train", damage)
        with pytest.raises(InputError, match="holds the value 9"):
            train(replace(experiment, data=data), run)
    assert [int(path.name) >= 3 for path in (run / "checkpoints").iterdir()] == [True]


def test_a_loss_that_is_not_finite_stops_the_run(tiny_experiment, tmp_path):
    hot = replace(tiny_experiment, optim=OptimConfig(learning_rate=1e30))
    experiment = changed(hot, steps=12, log_every=4, save_every=12, validate_every=12)
    with pytest.raises(
        InputError, match=r"is not finite by step 4; begin again in another --out with a lower optim\.learn"
    ):
        train(experiment, tmp_path / "run")
    assert not (tmp_path / "run" / "package").exists()


def test_weights_that_are_not_finite_are_neither_saved_nor_packaged(tiny_experiment, tmp_path):
    """The loss of a step is that of the weights before it: these may be lost while it still looks well."""
    experiment = changed(tiny_experiment, steps=4, save_every=2, validate_every=4)
    with pytest.MonkeyPatch.context() as patch:
        finite = loop.is_finite
        patch.setattr(loop, "is_finite", lambda state: finite(state) and int(state.step) < 4)
        with pytest.raises(InputError, match="not finite by step 4"):
            train(experiment, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["2"]
    assert not (tmp_path / "run" / "package").exists()
    _, state = init_state(tiny_experiment, make_shardings(ONE))
    assert finite(state)
    lost = jax.tree.map(lambda leaf: leaf, state.params)
    lost["decoder"] = jax.tree.map(lambda leaf: leaf.at[(0,) * leaf.ndim].set(jnp.inf), state.params["decoder"])
    assert not finite(state._replace(params=lost))


def test_a_package_half_written_by_a_killed_run_is_cleared_away(tiny_experiment, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(to_dict(tiny_experiment)))
    (tmp_path / ".deeplab-partial-abc" / "new").mkdir(parents=True)
    (tmp_path / ".deeplab-partial-abc" / "old").mkdir()
    with open_run(tiny_experiment, tmp_path):
        pass
    # Killed between putting the old package aside and the new one in its place, the old one comes back.
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "config.json", "package"]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (TrainConfig, {"steps": 0}),
        (TrainConfig, {"batch_size": 0}),
        (TrainConfig, {"seed": -1}),
        (TrainConfig, {"log_every": 0}),
        (OptimConfig, {"learning_rate": float("nan")}),
        (OptimConfig, {"momentum": 1.0}),
        (OptimConfig, {"clip_norm": 0.0}),
        (OptimConfig, {"accumulate": 0}),
    ],
)
def test_settings_that_cannot_be_are_named(kind, fields):
    (name,) = fields
    with pytest.raises(InputError, match=f"{name}={fields[name]} must"):
        kind(**fields)
