"""Finds a prepared builder of TensorFlow Datasets below a folder, by name, config and version."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deeplab_jax.errors import InputError, first_line
from deeplab_jax.serialization import read_json

FEATURES = "features.json"  # every prepared version has one
NAMES_A_CLASS = ("pythonClassName", "python_class_name", "type")  # of a feature there; the last in older versions


def open_builder(root: Path, name: str) -> Any:
    """TFDS's builder. Raises InputError where there is none of that name, or not as ArrayRecord."""
    named = re.fullmatch(r"(\w+)(?:/([^/:]+))?(?::(\d+\.\d+\.\d+))?", name)
    if not named:
        raise InputError(f"{name!r} names no TFDS builder; write NAME, NAME/CONFIG or NAME/CONFIG:1.0.0")
    folder = root if (root / FEATURES).is_file() else find_version(root, *named.groups())
    tfds = import_tfds()
    try:
        check_features(folder / FEATURES)
        builder = tfds.builder_from_directory(str(folder))
        title, formats = builder.info.full_name, sorted(f.value for f in builder.info.available_file_formats())
    except Exception as error:  # of JSON, Protocol Buffers or TFDS, each of its own kind
        raise InputError(f"{folder} is no readable TFDS builder ({first_line(error)}); prepare it anew") from None
    if not {part for part in named.groups() if part} <= set(title.split("/")):
        raise InputError(f"{folder} holds {title}, not {name}; name that or another folder")
    if "array_record" not in formats:
        raise InputError(
            f"{folder} was prepared as {' and '.join(formats)}; prepare it anew in another folder, with TensorFlow: "
            f'tfds.builder("{title.rpartition("/")[0]}", data_dir=FOLDER, file_format="array_record")'
            ".download_and_prepare()"
        )
    return builder


def check_features(path: Path) -> None:
    """Raises InputError where a feature is not TFDS's own: it would import the module that the file names."""
    nodes: list[Any] = [read_json(path)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, str) and node.lstrip().startswith("{"):  # so older versions hold what is inside a feature
            nodes.append(json.loads(node))
        elif isinstance(node, list):
            nodes += node
        elif isinstance(node, dict):
            nodes += node.values()
            for name in (node[key] for key in NAMES_A_CLASS if key in node):
                if not str(name).startswith("tensorflow_datasets."):
                    raise InputError(f"has a feature of {name!r}, which is not TFDS's own")


def find_version(root: Path, builder: str, config: str | None, version: str | None) -> Path:
    """The folder of that version of a builder, or of its newest one."""
    folder = root / builder
    if config is None and not _versions(folder):
        configs = sorted(path.name for path in folder.glob("*") if _versions(path))
        if len(configs) > 1:
            raise InputError(f"{folder} has the configs {', '.join(configs)}; name one, as in {builder}/{configs[0]}")
        config = next(iter(configs), None)
    folder /= config or ""
    versions = _versions(folder)
    if not versions:
        raise InputError(
            f"{folder} holds no version that TFDS prepared; --data.root must be the folder that TFDS calls data_dir, "
            f"which holds {builder}"
        )
    if version and version not in versions:
        raise InputError(f"{folder} has no version {version}; it has {', '.join(versions)}")
    return folder / (version or versions[-1])


def choose(what: str, possible: Sequence[str], usual: Sequence[str], builder: Any) -> str:
    """The key of the feature that has a usual name, or is the only one possible. Raises InputError that names all."""
    named = [key for key in usual if key in possible]
    if not named and len(possible) != 1:
        features = sorted(f"{key} ({type(f).__name__} {f.shape})" for key, f in builder.info.features.items())
        raise InputError(
            f"{builder.data_dir} must have one {what}, or one called {' or '.join(usual)}; it has {', '.join(features)}"
        )
    return (named or possible)[0]


def _versions(folder: Path) -> list[str]:
    """The names of the prepared versions in a folder, the newest last."""
    result = [path.parent.name for path in folder.glob(f"*/{FEATURES}")]
    result = [name for name in result if re.fullmatch(r"\d+\.\d+\.\d+", name)]
    return sorted(result, key=lambda name: [int(part) for part in name.split(".")])


def import_tfds() -> Any:
    try:
        import array_record  # noqa: F401
        import tensorflow_datasets  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(f"format tfds needs another package ({error}): pip install 'deeplab_jax[tfds]'") from None
    return tensorflow_datasets
