"""The `deeplab` command: the table of its commands. Each imports what it needs when it runs."""

import sys

import tyro

from deeplab_jax.cli.convert import convert
from deeplab_jax.cli.data import check_data
from deeplab_jax.cli.demo import demo
from deeplab_jax.cli.evaluate import evaluate
from deeplab_jax.cli.export import export
from deeplab_jax.cli.predict import predict
from deeplab_jax.cli.terminal import print_error
from deeplab_jax.cli.train import train
from deeplab_jax.errors import InputError

COMMANDS = {
    "demo": demo,
    "train": train,
    "evaluate": evaluate,
    "data check": check_data,
    "predict": predict,
    "convert": convert,
    "export": export,
}


def usage() -> str:
    lines = [f"  deeplab {name:10} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: deeplab COMMAND [--help]", "", *lines])


def main() -> int:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    name, *rest = [" ".join(arguments[:2]), *arguments[2:]] if arguments[0] == "data" else arguments
    if name not in COMMANDS:
        print(f"error: there is no command {name!r}\n{usage()}", file=sys.stderr)
        return 2
    try:
        if name == "train":
            train(rest)
        else:
            tyro.cli(COMMANDS[name], prog=f"deeplab {name}", args=rest)
    except InputError as error:
        print_error(error)
        return 1
    except OSError as error:
        print_error(f"{error.filename}: {error.strerror}" if error.filename else error)
        return 1
    except KeyboardInterrupt as error:
        print("interrupted; the same command goes on" if name in ("train", "demo") else "interrupted")
        return getattr(error, "exit_status", 130)
    return 0
