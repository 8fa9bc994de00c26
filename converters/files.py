"""Reads weight files and folders. Weights are data: nothing in a file is ever executed."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.torch_files import read_torch
from converters.torch_pickle import plain
from deeplab_jax.config import read_json
from deeplab_jax.errors import InputError

PRETRAINED = ("model.safetensors", "pytorch_model.bin")  # what save_pretrained writes, new and old
CHECKPOINT_KEYS = ("state_dict", "model_state_dict", "model_state", "model", "module", "weights", "net")
WRAPPERS = {"model", "module", "_orig_mod", "net", "network"}  # of names: `module.`, `model._orig_mod.` and the like

# What training scripts keep beside a model's own weights.
EXTRAS = re.compile(
    r"(.*normali[sz][^.]*\.)?(mean|std|pixel_mean|pixel_std)|[^.]*(loss|criterion|metric)[^.]*(\..*)?"
    r"|classification_head\..*"
)


@dataclass(frozen=True)
class Weights:
    """A model's own weights, under their names in the library that made it."""

    tensors: dict[str, Any]  # names -> arrays
    beside: list[str]  # names in the file that are no part of the model
    recorded: Mapping[str, Any]  # what `config.json` says, in a folder of save_pretrained


def read_weights(path: Path, anchor: str) -> Weights:
    """The weights in a `.safetensors` file, in any state dict, checkpoint or TorchScript archive of PyTorch's, or in a
    folder of `save_pretrained`.

    Args:
        path: the file or folder.
        anchor: a regular expression of names that the model has. It tells the model's weights from others in the file,
            and what stands before it in a name is a prefix such as `module.` or `model._orig_mod.`.

    Raises:
        InputError: that names the file and why it cannot be used.
    """
    if path.is_dir():
        files = [path / name for name in PRETRAINED if (path / name).is_file()]
        if not files:
            raise InputError(f"{path} holds neither {' nor '.join(PRETRAINED)}; name the weights file itself")
        recorded = read_json(path / "config.json") if (path / "config.json").is_file() else {}
        if not isinstance(recorded, dict):
            raise InputError(f"{path / 'config.json'} must be an object of settings")
        weights = read_weights(files[0], anchor)
        return Weights(weights.tensors, weights.beside, recorded)
    if not path.is_file():
        raise InputError(f"the weights file {path} does not exist or is no file")
    content = _read_safetensors(path) if _is_safetensors(path) else read_torch(path)
    state_dict, beside = _state_dict(content, anchor)
    if not state_dict:
        keys = [plain(str(key)) for key in content][:8] if isinstance(content, dict) else []
        found = f"; it holds {', '.join(keys)}" if keys else ""
        raise InputError(
            f"{path} is not a state dict (names -> tensors){found}; save model.state_dict() and convert that"
        )
    try:
        tensors, more = _unwrap(state_dict, anchor)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return Weights(tensors, [*beside, *more], {})


def has(anchor: str, names: Iterable[str]) -> bool:
    """Whether a name of the model's is among these, after whatever prefix."""
    return any(re.fullmatch(rf"(.*\.)?{anchor}", name) for name in names)


def _state_dict(content: Any, anchor: str) -> tuple[dict[str, Any], list[str]]:
    """The model's names -> tensors in a checkpoint, and the names of other copies of them and of what is no tensor."""
    candidates = dict(_dicts(content))
    copies = sorted((key for key in candidates if has(anchor, candidates[key])), key=_unusual)
    if not candidates:
        return {}, []
    chosen = copies[0] if copies else max(candidates, key=lambda key: len(candidates[key]))
    tensors = {name: value for name, value in candidates[chosen].items() if _is_tensor(value)}
    return tensors, [*copies[1:], *(name for name in candidates[chosen] if name not in tensors)]


def _unusual(key: str) -> tuple[int, list[int]]:
    """How far from usual this place in a checkpoint is for the model's weights; averages of them are farther."""
    parts = key.split(".") if key else []
    known = [CHECKPOINT_KEYS.index(part) for part in parts if part in CHECKPOINT_KEYS]
    return len(parts) - len(known), known


def _dicts(content: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every dictionary with a tensor in it, by the dotted keys that lead to it."""
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content) or depth > 3:
        return
    if any(_is_tensor(value) for value in content.values()):
        yield key, content
    for name, value in content.items():
        yield from _dicts(value, f"{key}.{name}" if key else name, depth + 1)


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _unwrap(weights: Mapping[str, Any], anchor: str) -> tuple[dict[str, Any], list[str]]:
    """The weights of the model alone without their prefix, and the names of what training scripts keep beside it."""
    found = {match[1] for name in weights if (match := re.fullmatch(rf"((?:.*\.)?){anchor}", name))}
    prefixes = sorted(p for p in found if not any(p != other and p.startswith(other) for other in found))
    if len(prefixes) > 1:  # an average or a teacher beside the model
        usual = [prefix for prefix in prefixes if set(prefix.split(".")[:-1]) <= WRAPPERS]
        if len(usual) != 1:
            raise InputError(f"the weights of several models are in it ({', '.join(prefixes)}); save one of them alone")
        prefixes = usual
    prefix = prefixes[0] if prefixes else ""
    own, beside = {}, []
    for name, value in weights.items():
        bare = name.removeprefix(prefix)
        if not name.startswith(prefix) or EXTRAS.fullmatch(bare):
            beside.append(name)
        else:
            own[bare] = value
    return own, beside


def _is_safetensors(path: Path) -> bool:
    """By what it begins with, whatever its name: the size of a header, and the header, which is JSON."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" or (path.suffix == ".safetensors" and not start.startswith((b"PK", b"\x80")))


def _read_safetensors(path: Path) -> dict[str, Any]:
    import safetensors
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # a type of number that numpy has not
        raise InputError(f"{path} holds numbers of a type that cannot be read ({error}); save it as float32") from None
