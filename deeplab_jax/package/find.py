"""Which folder is meant by the name of a package."""

import os
from pathlib import Path, PurePosixPath

from deeplab_jax.errors import InputError

VARIABLE = "DEEPLAB_MODELS"  # the environment variable that names a directory of packages


def find_package(name: str | Path, model_directory: str | Path | None) -> Path:
    """The folder of that name or, where there is none, `project/3` or `project` in the directory of models.

    Raises:
        InputError: where there is neither, or the name leads out of that directory.
    """
    if not isinstance(name, (str, os.PathLike)):
        raise InputError(f"the package must be a folder or a name, not {name!r}")
    directory = model_directory or os.environ.get(VARIABLE)
    try:
        if Path(name).is_dir():
            return Path(name)
        root = Path(directory).resolve() if directory else None
    except (OSError, ValueError, TypeError) as error:  # ValueError: a null byte; TypeError: a directory that is no path
        raise InputError(f"the package {str(name)!r} cannot be looked up: {error}") from None
    if root is None:
        raise InputError(
            f"the package {name} does not exist or is no folder; for names such as project/3 give model_directory= or "
            f"the environment variable {VARIABLE}"
        )
    parts = PurePosixPath(name).parts
    if not (1 <= len(parts) <= 2 and not any(part in ("..", "/") or "\\" in part or "\0" in part for part in parts)):
        raise InputError(f"{str(name)!r} is neither a folder nor a name such as project or project/3")
    folder = root.joinpath(*parts)
    if not folder.is_dir():
        raise InputError(f"{directory} holds no package {name}")
    return folder
