"""What a run starts from besides random weights: those of a JAX package."""

from collections.abc import Sequence
from pathlib import Path

from deeplab_jax.architecture import ModelConfig
from deeplab_jax.config import PreprocessConfig, StartConfig, differences, load_json, to_dict
from deeplab_jax.data.classes import FOREGROUND, has_background
from deeplab_jax.errors import InputError
from deeplab_jax.inference.backends import jax as jax_backend
from deeplab_jax.inference.package import Package, read_package
from deeplab_jax.models import DeepLab
from deeplab_jax.models.weights import check_complete, flat_state, to_arrays

LAST_LAYERS = ("classifier.", "aux_head.classifier.")


def check_start(start: StartConfig, model: ModelConfig, class_names: Sequence[str]) -> None:
    """Raises InputError where a run cannot start so, as far as the package's texts tell: no weights are read."""
    if start.package and start.mode == "continue_training":
        check_continue(model, start.package, class_names)
    elif start.package:
        read_jax_package(start.package)


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
    theirs = to_arrays(open_jax_package(package))
    ours = names(model)
    heads = [{n: w.shape for n, w in weights.items() if n.startswith("aux_head.hidden.")} for weights in (theirs, ours)]
    left = LAST_LAYERS if heads[0] == heads[1] else (*LAST_LAYERS, "aux_head.")
    put(model, {name: array for name, array in theirs.items() if not name.startswith(left)}, left, package)
    return [name for name in ours if name.startswith(left)]


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
    put(model, to_arrays(open_jax_package(package)), (), package)


def check_continue(model: ModelConfig, package: Path, class_names: Sequence[str]) -> None:
    """Raises InputError where the architecture or the classes are not the package's."""
    theirs = read_jax_package(package).classes.names
    source = load_json(ModelConfig, package / "architecture.json")
    if facts := other_facts(source, model, package):
        raise InputError(f"the architectures differ: {facts[0]}; to continue training they must be equal")
    if len(theirs) == source.num_classes + 1 > 2:  # `background` was put in front for the shared API
        theirs = theirs[1:]
    for id, (ours, other) in enumerate(zip(class_names, theirs, strict=False)):
        if not same_class(ours, other, source.num_classes):
            raise InputError(
                f"class {id} is {ours!r} in the data set but {other!r} in {package}; to continue training they must "
                "be equal, to start on other classes use start.mode=transfer_learning"
            )
    if len(class_names) != len(theirs):
        raise InputError(
            f"the data set has {len(class_names)} classes but {package} has {len(theirs)}; to continue training they "
            "must be equal, to start on other classes use start.mode=transfer_learning"
        )
    if source.num_classes != model.num_classes:
        raise InputError(
            f"{package} gives {source.num_classes} logits but the model here {model.num_classes}; to continue training "
            f"set num_classes={source.num_classes} in the experiment"
        )


def same_class(ours: str, theirs: str, logits: int) -> bool:
    """Whether a class of the data set is that of a package. One logit has background, and one class beside it."""
    alike = theirs == FOREGROUND or (has_background([ours]) and has_background([theirs]))
    return ours == theirs or (logits == 1 and alike)


def unlike(package: Path, model: ModelConfig, preprocess: PreprocessConfig) -> list[str]:
    """Every setting in which a run differs from what the package's weights were trained with."""
    theirs = read_package(package).preprocess
    notes = [
        f"preprocess.{name} is {before} in {package} and {now} here"
        for name, before, now in differences(vars(theirs), vars(preprocess))
        if name in ("mean", "std")
    ]
    return notes + other_facts(load_json(ModelConfig, package / "architecture.json"), model, package)


def other_facts(theirs: ModelConfig, ours: ModelConfig, package: Path) -> list[str]:
    """Every field of the two architectures that differs, but for the classes and dropout."""
    return [
        f"model.{name} is {before} in {package} and {now} here"
        for name, before, now in differences(to_dict(theirs), to_dict(ours))
        if name != "num_classes" and not name.endswith("dropout")
    ]


def open_jax_package(package: Path) -> DeepLab:
    return jax_backend.load_model(read_jax_package(package).folder)


def read_jax_package(package: Path) -> Package:
    """All but its weights. Raises InputError where it is none."""
    read = read_package(package)
    if read.backend != "jax":
        raise InputError(f"{package} is a package for {read.backend}; training starts from a JAX package")
    return read


def put(model: DeepLab, arrays: dict, left: tuple[str, ...], package: Path) -> None:
    variables = {name: leaf for name, leaf in names(model).items() if not name.startswith(left)}
    try:
        check_complete({n: leaf.shape for n, leaf in variables.items()}, {n: a.shape for n, a in arrays.items()})
    except InputError as error:
        raise InputError(f"{package}: {error}") from None
    for name, leaf in variables.items():
        leaf[...] = arrays[name]


def names(model: DeepLab) -> dict:
    return {".".join(map(str, path)): leaf for path, leaf in flat_state(model).items()}
