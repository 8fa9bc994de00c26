"""The field's words, and sizes that a reader can take in."""

import ast
import io
import re
import tokenize

import jaxtyping
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
    r"|learnt|spoilt|licences?|unlabelled"
    r"|(normal|initial|general|random|quant|rematerial)is(e|ed|er|es|ing|ation)|optimis(e|ed|er|ers|ation))\b",
    re.IGNORECASE,
)
FOLDERS = ("deeplab_jax", "converters", "experiments", "tests")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")) if path.name != "test_style.py"]
DOCUMENTS = sorted((*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "experiments" / "RESULTS.md"))
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


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_words_of_the_documents_are_the_fields(path):
    assert not NOT_WORDS.findall(path.read_text())


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_function_fits_on_a_screen(path):
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    assert {node.name for node in functions if node.end_lineno - node.lineno >= 60} <= LISTS


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_holds_one_idea(path):
    assert len(path.read_text().splitlines()) <= 300


KINDS = {name for name in dir(jaxtyping) if isinstance(getattr(jaxtyping, name), type(jaxtyping.Shaped))}


def shapes(annotation, aliases):
    """Of every array that an annotation names: whether its shape is stated."""
    match annotation:
        case ast.Subscript(value=ast.Name(id=name)) if name in KINDS:
            return [True]
        case ast.Name(id="Array") | ast.Attribute(attr="ndarray" | "Array"):
            return [False]
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in aliases:
            return aliases[name]
        case ast.Constant(value=str(text)) if re.search(r"\b(ndarray|Array)\b", text):
            return [False]
    return [shape for child in ast.iter_child_nodes(annotation) for shape in shapes(child, aliases)]


def aliases_in(trees):
    """Such as `Logits = Float[np.ndarray, "k h w"]`, and those made of others."""
    aliases: dict[str, list[bool]] = {}
    for _ in range(2):
        for node in (node for tree in trees for node in tree.body if isinstance(node, ast.Assign)):
            if isinstance(node.value, ast.Subscript | ast.BinOp) and (stated := shapes(node.value, aliases)):
                aliases[node.targets[0].id] = aliases.get(node.targets[0].id, []) + stated
    return aliases


def functions_of_arrays(trees):
    """Every public function, method or nested function that takes or gives arrays, and whether it states all shapes."""
    aliases = aliases_in(trees.values())
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name.endswith("__")):
                arguments = [argument for argument in ast.walk(node.args) if isinstance(argument, ast.arg)]
                annotations = [*(argument.annotation for argument in arguments), node.returns]
                if stated := [shape for each in annotations if each for shape in shapes(each, aliases)]:
                    yield f"{name}:{node.lineno} {node.name}", all(stated)


def test_functions_of_arrays_state_shapes():
    packages = [path for path in FILES if path.relative_to(ROOT).parts[0] in ("deeplab_jax", "converters")]
    result = list(functions_of_arrays({name_of(path): ast.parse(path.read_text()) for path in packages}))
    without = [name for name, stated in result if not stated]
    assert len(without) <= 0.2 * len(result), "\n".join(without)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(a: np.ndarray): ...", [False]),
        ('def f(a: Float[np.ndarray, "h w"]) -> list[jax.Array | None]: ...', [False]),
        ('def f(*a: Float[np.ndarray, "h w"], n: int = 1) -> None: ...', [True]),
        ('def f(a: int) -> Callable[[np.ndarray], Int[Array, "n"]]: ...', [False]),
        ("def f(a: 'np.ndarray', b: Literal['h w']): ...", [False]),
        ('Pair = tuple[One, One]\nOne = UInt8[np.ndarray, "n"]\ndef f(a: Pair): ...', [True]),
        ("Batch = dict[str, np.ndarray]\ndef f() -> Iterator[loader.Batch]: ...", [False]),
        ("def f(n: int) -> str: ...\ndef _f(a: np.ndarray): ...", []),
        ("class A:\n    def __call__(self) -> Array: ...", [False]),
    ],
)
def test_how_shapes_are_counted(code, expected):
    assert [stated for _, stated in functions_of_arrays({"file": ast.parse(code)})] == expected
