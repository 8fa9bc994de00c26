"""Reads weight files and folders. Weights are data: nothing in a file is ever executed."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converters.torch_files import read_torch
from deeplab_jax.config import read_json
from deeplab_jax.errors import InputError

WRAPPED = ("state_dict", "model_state_dict", "model_state", "model", "module", "weights", "net")  # keys of checkpoints
PRETRAINED = ("model.safetensors", "pytorch_model.bin")  # what save_pretrained writes, new and old

# What training scripts keep beside a model's own weights.
EXTRAS = re.compile(r"(mean|std|pixel_mean|pixel_std|[^.]*(loss|criterion|metric)[^.]*(\..*)?|classification_head\..*)")


def read_weights(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Names -> arrays, and what `config.json` says where the path is a folder of `save_pretrained`.

    Takes `.safetensors`, and PyTorch state dicts and checkpoints of any kind (`.pth`, `.pt`, `.bin`, `.ckpt`).

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
        return read_weights(files[0])[0], recorded
    if not path.is_file():
        raise InputError(f"the weights file {path} does not exist or is no file")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    weights = _state_dict(content)
    if weights is None:
        raise InputError(f"{path} is not a state dict (names -> tensors); save model.state_dict() and convert that")
    return weights, {}


def unwrap(weights: Mapping[str, Any], anchor: str) -> tuple[dict[str, Any], list[str]]:
    """The weights of the model alone, and the names of what training scripts keep beside it.

    Args:
        weights: names -> arrays; the model's own may follow prefixes such as `module.` or `model._orig_mod.`.
        anchor: a regular expression of names that the model has; what stands before one is its prefix.
    """
    matches = [match for name in weights if (match := re.fullmatch(rf"((?:.*\.)?){anchor}", name))]
    prefix = min((match[1] for match in matches), key=len, default="")
    own, beside = {}, []
    for name, value in weights.items():
        bare = name.removeprefix(prefix)
        if EXTRAS.fullmatch(bare) or EXTRAS.fullmatch(name):
            beside.append(name)
        else:
            own[bare] = value
    return own, beside


def _state_dict(content: Any) -> dict[str, Any] | None:
    """The names -> tensors in a checkpoint, at the top or under one of the usual keys."""
    if _holds_tensors(content):
        return content
    if isinstance(content, dict):
        return next((content[key] for key in WRAPPED if _holds_tensors(content.get(key))), None)
    return None


def _holds_tensors(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(isinstance(name, str) and hasattr(v, "shape") and hasattr(v, "dtype") for name, v in value.items())
    )


def _read_safetensors(path: Path) -> dict[str, Any]:
    import safetensors
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # a type of number that numpy has not
        raise InputError(f"{path} holds numbers of a type that cannot be read ({error}); save it as float32") from None
