"""Configs to JSON and back: frozen dataclasses of numbers, texts, paths, tuples and one another."""

import dataclasses
import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from deeplab_jax.errors import InputError


def to_dict(config: Any) -> Any:
    """A config as what JSON can say."""
    if dataclasses.is_dataclass(config):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, tuple):
        return [to_dict(value) for value in config]
    return str(config) if isinstance(config, Path) else config


def from_dict(kind: Any, value: Any, where: str = "config") -> Any:
    """The config of type `kind` that `to_dict` wrote. Raises InputError that names the field, on anything else."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        kinds = [k for k in arguments if k is not type(None)]
        if value is None and len(kinds) < len(arguments):
            return None
        if len(kinds) > 1:  # configs that say which they are
            tags = {k.kind: k for k in kinds}
            tag = value.get("kind") if isinstance(value, dict) else None
            if not isinstance(tag, str) or tag not in tags:
                raise InputError(f"{where}: kind must be one of {', '.join(tags)}, not {tag!r}")
            kinds = [tags[tag]]
        return from_dict(kinds[0], value, where)
    if origin is Literal:
        if any(type(value) is type(argument) and value == argument for argument in arguments):
            return value
        raise InputError(f"{where}: must be one of {list(arguments)}, not {value!r}")
    if origin is tuple:
        kinds = arguments[:1] * len(value) if isinstance(value, list) and arguments[-1] is Ellipsis else arguments
        if not isinstance(value, list) or len(value) != len(kinds):
            raise InputError(f"{where}: must be a list of {len(kinds)} values, not {value!r}")
        return tuple(from_dict(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        if not isinstance(value, dict):
            raise InputError(f"{where}: must be an object with the keys {', '.join(hints)}, not {value!r}")
        if unknown := [name for name in value if name not in hints]:
            raise InputError(f"{where}: {', '.join(map(repr, unknown))} unknown; the keys are {', '.join(hints)}")
        fields = {name: from_dict(hints[name], v, f"{where}.{name}") for name, v in value.items()}
        missing = [
            f.name
            for f in dataclasses.fields(kind)
            if f.name not in fields and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        ]
        if missing:
            raise InputError(f"{where}: {', '.join(missing)} missing")
        try:
            return kind(**fields)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and (isinstance(value, float) or (type(value) is int and abs(value) < 2**1023)):
        return float(value)  # numpy's too
    if type(value) is not kind:
        raise InputError(f"{where}: must be of type {kind.__name__}, not {value!r}")
    return value


def differences(before: dict, now: dict, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every field in which two results of `to_dict` differ, dotted, and its two values."""
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from differences(old, new, f"{prefix}{name}.")
        elif old != new:
            yield f"{prefix}{name}", old, new


def save_json(config: Any, path: Path) -> None:
    """Writes it beside its place first, so that a kill leaves the old file or the new one."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(to_dict(config), indent=2) + "\n")
    new.replace(path)


def load_json(kind: Any, path: Path) -> Any:
    """The config in a JSON file. Raises InputError that names the file."""
    return from_dict(kind, read_json(path), str(path))


def read_json(path: Path) -> Any:
    """What a JSON file says. Raises InputError that names the file where it is absent or no JSON."""
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a readable JSON file: {error}") from None
