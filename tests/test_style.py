"""The field's words, and sizes that a reader can take in."""

import ast
import io
import re
import tokenize

import pytest

from helpers.fixtures import ROOT

INSTEAD = {  # of a name: the field's
    "picture": "image",
    "pictures": "images",
    "spot": "placement",
    "adjust": "apply_contrast",
    "tint": "overlay",
    "cin": "in_channels",
    "cout": "out_channels",
    "pick": "gather_true_class",
    "valid_and_chosen": "mask_ignored",
    "rematerialize": "remat",
    "encoder_factor": "encoder_lr_scale",
    "clip_norm": "grad_clip_norm",
    "hard_pixels": "ohem_fraction",
    "learning_rate": "lr",
    "StartConfig": "InitConfig",
    "Silence": "NullTracker",
    "what_decides": "resume_key",
    "theirs": "other or expected",
    "ours": "own or actual",
    "found": "actual or result",
    "said": "stated",
    "told": "message",
    "look": "inspect",
}
NOT_WORDS = re.compile(
    r"\b(pictures?|colours?|coloured|greys?|neighbours?|neighbouring|labelled|labelling|behaviours?|centre[ds]?"
    r"|(normal|initial|general|random|quant|rematerial)is(e|ed|er|es|ing|ation)|optimis(e|ed|er|ers|ation))\b",
    re.IGNORECASE,
)
FOLDERS = ("deeplab_jax", "converters", "experiments", "tests")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")) if path.name != "test_style.py"]
# What is long because it lists, one line each, what is tried or what a stand-in answers.
LISTS = {"odd_image", "change_graph", "tensorrt_module"}


def name_of(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_names_and_words_are_the_fields(path):
    text = path.read_text()
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type == tokenize.NAME]
    assert {token.string for token in tokens}.isdisjoint(INSTEAD)
    assert not NOT_WORDS.findall(text)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_function_fits_on_a_screen(path):
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    assert {node.name for node in functions if node.end_lineno - node.lineno >= 60} <= LISTS


@pytest.mark.parametrize("path", [path for path in FILES if "tests" not in path.parts], ids=name_of)
def test_a_file_holds_one_idea(path):
    assert len(path.read_text().splitlines()) <= 300
