"""What a run starts from besides random weights: those of a JAX package."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors

from deeplab_jax.classes import FOREGROUND, has_background
from deeplab_jax.config import Experiment, InitConfig, PreprocessConfig
from deeplab_jax.errors import InputError
from deeplab_jax.model_config import ModelConfig
from deeplab_jax.models import DeepLab
from deeplab_jax.models.state import abstract_model, check_complete, fill, flat_state, to_arrays
from deeplab_jax.package import jax_weights
from deeplab_jax.package.folder import Package, read_package
from deeplab_jax.serialization import differences, load_json, to_dict

LAST_LAYERS = ("classifier.", "aux_head.classifier.")
DILATION = ("output_stride", "dilation_rule", "multi_grid")  # of an encoder: the same weights do for all of them


def check_init(config: Experiment, class_names: Sequence[str]) -> None:
    """Raises InputError where the run cannot start from its package. Nothing is compiled."""
    model = abstract_model(config.model)
    blank = {path: np.zeros(leaf.shape, np.float32) for path, leaf in flat_state(model).items()}
    load_init(fill(model, blank), config.init, class_names)


def load_init(model: DeepLab, init: InitConfig, class_names: Sequence[str]) -> list[str]:
    """Puts a package's weights into the model, by the mode; returns the names of the tensors that it did not give."""
    if init.package is None:
        return []
    if init.mode == "continue_training":
        continue_training(model, init.package, class_names)
        return []
    return (encoder_alone if init.mode == "encoder" else transfer_learning)(model, init.package)


def encoder_alone(model: DeepLab, package: Path) -> list[str]:
    """Puts the weights of a package's encoder into the model, whatever comes after the encoder in either.

    Args:
        model: changed in place.
        package: a JAX package with the same encoder; its dilations may differ.

    Returns:
        The names of the model's tensors that were left as they were.

    Raises:
        InputError: with every missing, unexpected or misshapen tensor of the encoder.
    """
    other = to_arrays(open_jax_package(package))
    left = tuple({f"{name.split('.')[0]}." for name in variables_by_name(model)} - {"encoder."})
    copy_arrays(model, {name: array for name, array in other.items() if name.startswith("encoder.")}, left, package)
    return [name for name in variables_by_name(model) if name.startswith(left)]


def describe_init(init: InitConfig, left: Sequence[str]) -> str:
    """What a run starts from, and what its package did not give, in one line."""
    if init.mode != "encoder":
        return f"starting from the weights of {init.package}" + (f"; not its {counted(left)}" if left else "")
    package = Path(init.package or "")
    with safetensors.safe_open(package / "weights.safetensors", framework="numpy") as file:
        other = [name for name in file.keys() if not name.startswith("encoder.")]  # noqa: SIM118 (not a dict)
    return f"starting from the encoder of {package}, whose {counted(other)} were left; at random: {counted(left)}"


def counted(tensors: Sequence[str]) -> str:
    """Their names, or of many the parts of the model that they are of."""
    if len(tensors) <= 6:
        return ", ".join(tensors)
    counts = Counter(name.split(".")[0] for name in tensors)
    return ", ".join(f"{part} ({count} tensor{'s' if count > 1 else ''})" for part, count in counts.items())


def transfer_learning(model: DeepLab, package: Path) -> list[str]:
    """Puts all of a package's weights but those of the last layer into the model, whatever classes it was trained for.

    An auxiliary head that only one of the two has, or of another width, is left out too.

    Args:
        model: changed in place.
        package: a JAX package of the same architecture; output stride, rates and class count may differ.

    Returns:
        The names of the model's tensors that were left as they were.

    Raises:
        InputError: with every missing, unexpected or misshapen tensor.
    """
    other = to_arrays(open_jax_package(package))
    own = variables_by_name(model)
    heads = [{n: w.shape for n, w in weights.items() if n.startswith("aux_head.hidden.")} for weights in (other, own)]
    left = LAST_LAYERS if heads[0] == heads[1] else (*LAST_LAYERS, "aux_head.")
    try:
        copy_arrays(model, {name: array for name, array in other.items() if not name.startswith(left)}, left, package)
    except InputError as error:
        shapes = [{n: w.shape for n, w in weights.items() if n.startswith("encoder.")} for weights in (other, own)]
        hint = "; its encoder fits, which init.mode=encoder takes alone" if shapes[0] == shapes[1] else ""
        raise InputError(f"{error}{hint}") from None
    return [name for name in own if name.startswith(left)]


def continue_training(model: DeepLab, package: Path, class_names: Sequence[str]) -> None:
    """Puts all of a package's weights into the model.

    Args:
        model: changed in place.
        package: a JAX package of the same architecture.
        class_names: of the data set; they must be the package's, in the same order.

    Raises:
        InputError: that says where the class names differ, or with every missing, unexpected or misshapen tensor.
    """
    check_continue(model.config, package, class_names)
    copy_arrays(model, to_arrays(open_jax_package(package)), (), package)


def check_continue(model: ModelConfig, package: Path, class_names: Sequence[str]) -> None:
    """Raises InputError where the architecture or the classes are not the package's."""
    names = read_jax_package(package).classes.names
    source = load_json(ModelConfig, package / "architecture.json")
    if facts := other_facts(source, model, package):
        raise InputError(f"the architectures differ: {facts[0]}; to continue training they must be equal")
    if len(names) == source.num_classes + 1 > 2:  # `background` was put in front for the shared API
        names = names[1:]
    for id, (own, other) in enumerate(zip(class_names, names, strict=False)):
        if not same_class(own, other, source.num_classes):
            raise InputError(
                f"class {id} is {own!r} in the data set but {other!r} in {package}; to continue training they must "
                "be equal, to start on other classes use init.mode=transfer_learning"
            )
    if len(class_names) != len(names):
        raise InputError(
            f"the data set has {len(class_names)} classes but {package} has {len(names)}; to continue training they "
            "must be equal, to start on other classes use init.mode=transfer_learning"
        )
    if source.num_classes != model.num_classes:
        raise InputError(
            f"{package} gives {source.num_classes} logits but the model here {model.num_classes}; to continue training "
            f"set num_classes={source.num_classes} in the experiment"
        )


def same_class(own: str, other: str, logits: int) -> bool:
    """Whether a class of the data set is that of a package. One logit has background, and one class beside it."""
    alike = other == FOREGROUND or (has_background([own]) and has_background([other]))
    return own == other or (logits == 1 and alike)


def init_warnings(init: InitConfig, model: ModelConfig, preprocess: PreprocessConfig) -> list[str]:
    """Every setting in which a run differs from what the weights that it takes from a package were trained with."""
    package = Path(init.package or "")
    other = read_package(package).preprocess
    notes = [
        f"preprocess.{name} is {before} in {package} and {now} here"
        for name, before, now in differences(vars(other), vars(preprocess))
        if name in ("mean", "std", "color_mode")
    ]
    facts = other_facts(load_json(ModelConfig, package / "architecture.json"), model, package)
    if init.mode == "encoder":
        free = tuple(f"model.encoder.{name} " for name in DILATION)
        facts = [fact for fact in facts if fact.startswith("model.encoder.") and not fact.startswith(free)]
    return notes + facts


def other_facts(other: ModelConfig, own: ModelConfig, package: Path) -> list[str]:
    """Every field of the two architectures that differs, but for the classes and dropout."""
    return [
        f"model.{name} is {before} in {package} and {now} here"
        for name, before, now in differences(to_dict(other), to_dict(own))
        if name != "num_classes" and not name.endswith("dropout")
    ]


def open_jax_package(package: Path) -> DeepLab:
    return jax_weights.load_model(read_jax_package(package).folder)


def read_jax_package(package: Path) -> Package:
    """All but its weights. Raises InputError where it is none."""
    read = read_package(package)
    if read.backend != "jax":
        raise InputError(f"{package} is a package for {read.backend}; training starts from a JAX package")
    return read


def copy_arrays(model: DeepLab, arrays: dict, left: tuple[str, ...], package: Path) -> None:
    variables = {name: leaf for name, leaf in variables_by_name(model).items() if not name.startswith(left)}
    try:
        check_complete({n: leaf.shape for n, leaf in variables.items()}, {n: a.shape for n, a in arrays.items()})
    except InputError as error:
        raise InputError(f"{package}: {error}") from None
    for name, leaf in variables.items():
        leaf[...] = arrays[name]


def variables_by_name(model: DeepLab) -> dict:
    return {".".join(map(str, path)): leaf for path, leaf in flat_state(model).items()}
