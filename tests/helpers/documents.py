"""The project's documents, and what they hold: blocks of code, commands, names."""

import ast
import re
import shlex
from pathlib import Path

from helpers.fixtures import ROOT

DOCUMENTS = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")] + sorted(
    (ROOT / "docs").glob("*.md")
)
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text().replace("\\_", "_") for path in DOCUMENTS}
SHELL, PYTHON = "bash", "python"
SECTIONS = "model|data|preprocess|augment|loss|optim|init|train"  # of an experiment


def blocks(text: str, language: str) -> list[str]:
    return [block for kind, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S) if kind == language]


def prose(text: str) -> str:
    """Without its blocks, on one line."""
    return " ".join(re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S).split())


def inline_code(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", prose(text))


def calls(line: str) -> list[tuple[str, ...]]:
    """What follows `deeplab` in a line of a shell, also in an argument of another command; `...` is an experiment."""
    words = shlex.split(line, comments=True)
    inner = [call for word in words if word.startswith("deeplab ") for call in calls(word)]
    own: list[list[str]] = [[]]
    for word in words:
        own.append([]) if word == "&&" else own[-1].append("my_experiment.py" if word == "..." else word)
    return inner + [tuple(part[part.index("deeplab") + 1 :]) for part in own if "deeplab" in part]


def documented_calls(text: str) -> list[tuple[str, ...]]:
    lines = [line for block in blocks(text, SHELL) for line in block.splitlines()]
    lines += [code for code in inline_code(text) if code.startswith("deeplab ")]
    for code in inline_code(text):
        if re.fullmatch(rf"(--)?({SECTIONS})\.[\w-]+ .+", code):  # an option and its value
            value = code.removeprefix("--").replace(" N", " 2")
            lines.append(f"deeplab train my_experiment.py --init.package PACKAGE --{value}")
    return [call for line in lines for call in calls(line)]


def recipe_calls(path: Path) -> list[tuple[str, ...]]:
    """Those of its docstring."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return [call for line in text.replace("\\\n", "").splitlines() if "deeplab " in line for call in calls(line)]
