"""Reads weight files and folders. Weights are data: nothing in a file is ever executed."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converters.readers.torch_files import read_torch
from converters.readers.torch_objects import plain
from converters.recorded import STATISTIC, Setting, channels, settings_in
from deeplab_jax.errors import InputError
from deeplab_jax.serialization import read_json

PRETRAINED = ("model.safetensors", "pytorch_model.bin")  # what save_pretrained writes, new and old
TRANSFORM = "albumentations_config_eval.json"  # what images go through, as segmentation_models_pytorch shows to save it
WRAPPERS = re.compile(r"(?:^|(?<=\.))(_orig_mod|module)\.")  # torch.compile and DataParallel put them into names
# Copies of a model that are not the model: found by their key in a checkpoint, or by the prefix of their names.
COPIES = re.compile(r"(^|.*[^a-z])(ema|swa|avg|averaged?|shadow|teacher|momentum|target|grads?)([^a-z].*|$)")

# What training scripts keep beside a model's own weights.
EXTRAS = re.compile(
    r"(.*normali[sz][^.]*\.)?(mean|std|pixel_mean|pixel_std)|[^.]*(loss|criterion|metric)[^.]*(\..*)?"
    r"|classification_head\..*|(.*\.)?total_(ops|params)|n_averaged"
)


@dataclass(frozen=True)
class Weights:
    """A model's own weights, under their names in the library that made it."""

    tensors: dict[str, Any]  # names -> arrays
    key: str  # of the checkpoint that they were under
    beside: list[str]  # names in the file that are no part of the model
    settings: tuple[Setting, ...]  # what the file, or JSON files beside it in a folder, say of the model
    config: Mapping[str, Any]  # what `config.json` says, in a folder of save_pretrained


def read_weights(path: Path, anchor: str) -> Weights:
    """The weights in a `.safetensors` file, in any state dict, checkpoint or TorchScript archive of PyTorch's, or in a
    folder of `save_pretrained`.

    Args:
        path: the file or folder.
        anchor: a regular expression of names that the model has. It tells the model's weights from others in the file,
            and what stands before it in a name is a prefix such as `model.`.

    Raises:
        InputError: that names the file and why it cannot be used.
    """
    if path.is_dir():
        return _read_folder(path, anchor)
    if not path.is_file():
        raise InputError(f"the weights file {path} does not exist or is no file")
    content, metadata = _read_safetensors(path) if _is_safetensors(path) else (read_torch(path), {})
    try:
        key, state_dict, beside = _state_dict(content, anchor)
        tensors, more = _unwrap(state_dict, anchor)
        settings = settings_in(content) + settings_in(metadata, "metadata")
    except InputError as error:
        raise InputError(f"{path} {error}") from None
    return Weights(tensors, key, [*beside, *more], settings, {})


def _read_folder(path: Path, anchor: str) -> Weights:
    files = [path / name for name in PRETRAINED if (path / name).is_file()]
    if not files:
        raise InputError(f"{path} holds neither {' nor '.join(PRETRAINED)}; name the weights file itself")
    weights = read_weights(files[0], anchor)
    stated = {name: read_json(path / name) for name in ("config.json", TRANSFORM) if (path / name).is_file()}
    for name, content in stated.items():
        if not isinstance(content, dict):
            raise InputError(f"{path / name} must be an object of settings")
    settings = [setting for name, content in stated.items() for setting in settings_in(content, name)]
    return replace(weights, settings=(*weights.settings, *settings), config=stated.get("config.json", {}))


def has(anchor: str, names: Iterable[str]) -> bool:
    """Whether a name of the model's is among these, after whatever prefix."""
    return any(re.fullmatch(rf"(.*\.)?{anchor}", name) for name in names)


def _state_dict(content: Any, anchor: str) -> tuple[str, dict[str, Any], list[str]]:
    """Where the model is in a checkpoint, its names -> tensors, and the names of other tensors and of what is none."""
    result = dict(_dicts(content))
    if not result:
        keys = ", ".join(plain(str(key)) for key in list(content)[:8]) if isinstance(content, dict) else ""
        holds = f"; it holds {keys}" if keys else ""
        raise InputError(f"is not a state dict (names -> tensors){holds}; save model.state_dict() and convert that")
    models = [key for key in result if has(anchor, result[key])]
    chosen = _only_model(models) if models else max(result, key=lambda key: len(result[key]))
    tensors = {name: value for name, value in result[chosen].items() if _is_tensor(value)}
    rest = [name for name in result[chosen] if name not in tensors and name not in result]
    return chosen, tensors, [*(key for key in result if key not in ("", chosen)), *rest]


def _only_model(places: Collection[str]) -> str:
    """Of the keys or prefixes under which there is a model. Raises InputError unless all others are copies of it."""
    originals = [place for place in places if not COPIES.fullmatch(place)] or list(places)
    if len(originals) > 1:
        names = ", ".join(plain(place) or "the top" for place in sorted(places))
        raise InputError(f"holds several models (under {names}); save one of them alone")
    return originals[0]


def _dicts(content: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every dictionary with a tensor in it, by the dotted keys that lead to it."""
    if depth > 3 or not isinstance(content, dict | list | tuple):
        return
    pairs = content.items() if isinstance(content, dict) else enumerate(content[:8])
    items = {str(name): value for name, value in pairs if isinstance(name, str) or not isinstance(content, dict)}
    if any(_is_tensor(value) for value in items.values()):
        yield key, items
    for name, value in items.items():
        yield from _dicts(value, f"{key}.{name}" if key else name, depth + 1)


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _unwrap(weights: Mapping[str, Any], anchor: str) -> tuple[dict[str, Any], list[str]]:
    """The weights of the model alone without their prefix, and the names of what training scripts keep beside it."""
    bare = {name: WRAPPERS.sub("", name) for name in weights}
    prefixes = {match[1] for name in bare.values() if (match := re.fullmatch(rf"((?:.*\.)?){anchor}", name))}
    prefix = _only_model(prefixes) if prefixes else ""
    others = tuple(other for other in prefixes if other != prefix)
    own, beside = {}, []
    for name, value in weights.items():
        inner = bare[name].removeprefix(prefix)
        extra = EXTRAS.fullmatch(inner) or (STATISTIC.fullmatch(inner.split(".")[-1]) and channels(value))
        if not bare[name].startswith(prefix) or bare[name].startswith(others) or extra:
            beside.append(name)
        elif inner in own:
            raise InputError(f"holds {plain(inner)} twice, once under {plain(name)}; save one model alone")
        else:
            own[inner] = value
    return own, beside


def _is_safetensors(path: Path) -> bool:
    """By what it begins with, whatever its name: the size of a header, and the header, which is JSON."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" or (path.suffix == ".safetensors" and not start.startswith((b"PK", b"\x80")))


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Its tensors, and the texts that may stand beside them."""
    import safetensors
    from safetensors.numpy import load_file

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
        return load_file(path), metadata or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # a type of number that numpy has not
        raise InputError(f"{path} holds numbers of a type that cannot be read ({error}); save it as float32") from None
