"""What README, docs/, CONTRIBUTING and SECURITY say is there: every command, snippet, option, file and name."""

import ast
import contextlib
import functools
import io
import json
import re
import shutil
import sys
import tomllib
from pathlib import Path

import jax.numpy as jnp
import pytest
from flax import nnx
from PIL import Image

from deeplab_jax.cli import commands
from deeplab_jax.data.formats import FORMATS
from deeplab_jax.train import loop, sharding
from helpers.documents import PYTHON, SECTIONS, TEXTS, blocks, documented_calls, inline_code, prose, recipe_calls
from helpers.fixtures import ROOT, blank_model

each_document = pytest.mark.parametrize("name", TEXTS)


class Reached(BaseException):
    """A command got through its parser; no handler of errors takes this for one."""


CALLS = dict.fromkeys(call for text in TEXTS.values() for call in documented_calls(text))
RECIPES = sorted((ROOT / "experiments" / "recipes").glob("*.py"))
RECIPE_CALLS = dict.fromkeys(call for path in RECIPES for call in recipe_calls(path))


def name_of(call: tuple[str, ...]) -> str:
    return " ".join(call[:2]) if call[0] == "data" else call[0]


@pytest.fixture
def workplace(tmp_path, monkeypatch, tiny_package, shapes_folder):
    """A folder that holds what the commands name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    for package in ("PACKAGE", "runs/mine/package", "onnx_package"):
        (tmp_path / package).symlink_to(tiny_package)
    (tmp_path / "my_data").symlink_to(shapes_folder)
    (tmp_path / "folder_of_images").symlink_to(shapes_folder / "images" / "val")
    shutil.copy(shapes_folder / "images" / "val" / "0.png", tmp_path / "image.jpg")
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    shutil.copy(ROOT / "experiments" / "recipes" / "camvid_resnet18.py", tmp_path / "my_experiment.py")
    write_supervisely_project(tmp_path)
    return tmp_path


def write_supervisely_project(folder: Path) -> None:
    (folder / "training.json").write_text("{}")
    root = folder / "PROJECT"
    for kind in ("img", "ann"):
        (root / "ds" / kind).mkdir(parents=True)
    classes = [
        {"title": title, "shape": "polygon", "color": color} for title, color in (("bg", "#000000"), ("a", "#FF0000"))
    ]
    (root / "meta.json").write_text(json.dumps({"classes": classes}))
    for tag in ("train", "val"):
        Image.new("RGB", (8, 8)).save(root / "ds" / "img" / f"{tag}.png")
        stated = {"size": {"height": 8, "width": 8}, "tags": [{"name": tag}], "objects": []}
        (root / "ds" / "ann" / f"{tag}.png.json").write_text(json.dumps(stated))


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["deeplab", *arguments])
    return commands.main()


def stop_after_parsing(monkeypatch) -> None:
    """Every command ends in Reached where its work would begin."""

    def reached(*_, **__):
        raise Reached

    for name, command in commands.COMMANDS.items():
        if name != "train":  # which main calls by its own name
            monkeypatch.setitem(commands.COMMANDS, name, functools.wraps(command)(lambda *_, **__: reached()))
    monkeypatch.setattr(loop, "train", reached)
    monkeypatch.setattr(sharding, "join_processes", lambda: None)


@pytest.mark.parametrize("call", CALLS | RECIPE_CALLS, ids=" ".join)
def test_every_command_is_parsed(workplace, monkeypatch, call):
    if " ".join(call) in commands.COMMANDS and call != ("demo",):
        return  # the name of a command
    stop_after_parsing(monkeypatch)
    with pytest.raises(SystemExit if "--help" in call else Reached) as end:
        run(monkeypatch, *call)
    assert "--help" not in call or end.value.code == 0


def test_a_wrong_command_is_not_parsed(workplace, monkeypatch):
    """The test above can fail."""
    stop_after_parsing(monkeypatch)
    for call in ["predict PACKAGE image.jpg --out o --sizes 3 4", "train my_experiment.py --optim.learning-rate 1"]:
        with pytest.raises(SystemExit, match="2"):
            run(monkeypatch, *call.split())
    assert run(monkeypatch, "train", "another_experiment.py") == 1


def test_every_command_is_documented():
    assert {name_of(call) for call in CALLS} == set(commands.COMMANDS)
    assert len(RECIPE_CALLS) >= len(RECIPES)


def test_the_commands_of_the_readme_run(workplace, monkeypatch, capsys):
    """Those that neither train nor port nor export; tests/cli runs these."""
    quick = [
        call for call in documented_calls(TEXTS["README.md"]) if name_of(call) in ("data check", "evaluate", "predict")
    ]
    assert len(quick) == 3
    for call in quick:
        assert run(monkeypatch, *call) == 0, capsys.readouterr().err
    assert (workplace / "data-check.png").is_file()
    assert json.loads((workplace / "scores.json").read_text())["images"] == 5
    with Image.open(workplace / "predictions" / "image_mask.png") as mask:
        assert mask.size == (48, 48)


class Given(dict):
    """The names of a snippet; those that it is given are made when it asks for them, for the config it has set."""

    def __missing__(self, name):
        from converters import smp, tf_deeplab

        match name:
            case "state_dict":
                return smp.to_state_dict(blank_model(self["config"]))
            case "variables":
                return tf_deeplab.to_variables(blank_model(self["config"]))
            case "images":
                return jnp.zeros((1, 33, 65, 3))
        raise KeyError(name)


def run_snippet(document: str) -> Given:
    (block,) = blocks(TEXTS[document], PYTHON)
    names = Given()
    exec(compile(block, document, "exec"), {}, names)
    return names


def test_every_snippet_is_run_here():
    assert {name for name, text in TEXTS.items() if blocks(text, PYTHON)} == {
        "README.md",
        "docs/models.md",
        "docs/port.md",
    }


def test_the_snippet_of_automodel_runs(workplace, capsys):
    names = run_snippet("README.md")
    assert names["segmentation_map"].shape == names["confidence"].shape == (48, 48)
    assert "background" in capsys.readouterr().out


def test_the_snippet_of_models_runs():
    logits = nnx.eval_shape(lambda: run_snippet("docs/models.md")["logits"])
    assert (logits.shape, logits.dtype) == ((1, 33, 65, 21), jnp.float32)


def test_the_snippet_of_converters_runs():
    names = run_snippet("docs/port.md")
    assert names["model"].config == names["config"]
    assert len(names["variables"]) > 300


@pytest.fixture(scope="module")
def options():
    """Of every command, as its help lists them."""
    help = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(help):
        patch.setenv("COLUMNS", "400")
        for name in commands.COMMANDS:
            with pytest.raises(SystemExit):
                run(patch, *name.split(), *([str(RECIPES[0])] if name == "train" else []), "--help")
    return set(re.findall(r"(?<![\w-])--([\w.-]+)", help.getvalue()))


@each_document
def test_every_named_option_exists(name, options):
    words = {code.split()[0] for code in inline_code(TEXTS[name])}
    named = {word for word in words if re.fullmatch(rf"--[\w.-]+|({SECTIONS})\.(?!txt|py)[\w-]+", word)}
    assert {word.removeprefix("--").replace("_", "-") for word in named} <= options


def test_the_table_of_fields(options):
    """A field without its section is of the section before it."""
    table = re.search(r"^## Fields$(.*?)^## ", TEXTS["docs/train.md"], re.M | re.S)
    assert table
    fields, section = set(), ""
    for code in inline_code(table[1]):
        word = code.split()[0]
        section = word.split(".")[0] if "." in word else section
        fields.add(word if "." in word else f"{section}.{word}")
    assert len(fields) > 30
    assert fields <= options


def slug(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")


@each_document
def test_links_lead_somewhere(name):
    for link in re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]):
        if link.startswith("https://"):
            continue
        place, _, anchor = link.partition("#")
        target = (ROOT / name).parent / place if place else ROOT / name
        assert target.exists(), link
        assert ROOT in [target.resolve(), *target.resolve().parents], link
        if anchor:
            assert anchor in map(slug, re.findall(r"^#+ (.+)$", target.read_text(), re.M)), link


@each_document
def test_named_files_and_modules_exist(name):
    top = "deeplab_jax|converters|experiments|tests|docs|\\.ci"
    for path in re.findall(rf"(?<![\w/.~-])(?:\.\./)?((?:{top})/[\w./-]*)", TEXTS[name]):
        assert (ROOT / path.rstrip(".")).exists(), path
    for code in inline_code(TEXTS[name]):
        if re.fullmatch(r"(deeplab_jax|converters)(\.\w+)+", code):
            path = ROOT.joinpath(*code.split("."))
            assert path.is_dir() or path.with_suffix(".py").is_file(), code


def defined(path: Path) -> set[str]:
    """What a module defines or sets at its top."""
    tree = ast.parse(path.read_text())
    targets = [
        target
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)} | {
        node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)
    }


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_names_are_in_the_files_that_are_named(name):
    places = re.findall(r"((?:`\w+`(?:, | and )?)+) in \[[^\]]+\]\(([\w/.]+\.py)\)", prose(TEXTS[name]))
    assert len(places) >= 6
    for listed, path in places:
        assert set(re.findall(r"\w+", listed.replace(" and ", " "))) <= defined(ROOT / path), (listed, path)


def test_the_map_has_every_room_in_the_order_of_imports():
    from test_rooms import ROOMS

    table = re.search(r"^## The map$(.*?)^## ", TEXTS["CONTRIBUTING.md"], re.M | re.S)
    assert table
    rows = [line.split("|")[1] for line in table[1].splitlines() if line.startswith("| [")]
    mapped = [
        {path.strip("/").removesuffix(".py").replace("/", ".") for path in re.findall(r"\(([^)]+)\)", row)}
        for row in rows
    ]
    assert mapped == ROOMS


def test_every_layout_has_a_row():
    rows = re.findall(r"^\| `([\w:]+)` \|", TEXTS["docs/data.md"].partition("## Layouts")[2], re.M)
    assert sorted(rows) == sorted([*FORMATS, "tfds:NAME"])


def test_every_extra_is_named():
    (extras,) = re.findall(r"Extras: (.*?)\. ## ", prose(TEXTS["README.md"]))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(re.findall(r"`(\w+)`", extras)) == set(project["optional-dependencies"])


def test_the_table_of_parity_is_where_its_script_writes_it():
    script = (ROOT / "experiments" / "checks" / "parity.py").read_text()
    (place,) = re.findall(r"--readme (\S+)", script)
    begin, end = re.findall(r'"(<!-- .+? -->)"', script)
    text = (ROOT / place).read_text()
    assert text.count(begin) == text.count(end) == 1
    assert text.partition(begin)[2].partition(end)[0].count("\n| ") > 20
