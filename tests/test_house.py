"""The house: imports run one way, files and functions stay short, nothing happens at import."""
import ast
import importlib
import pathlib
import subprocess
import sys

import pytest

import configuration

ROOT = pathlib.Path(configuration.__file__).parent
# From the top downwards: a room imports only rooms that stand below it, and of these only what it needs.
HOUSE = {
    "gui": "board service record listening embedding features audio configuration common",
    "board": "service listening",
    "service": "record listening verification embedding measures audio common",
    "record": "listening verification embedding features audio configuration common",
    "test": "report embedding protocol utils data_preprocess features measures audio configuration common",
    "report": "measures common",
    "model": "verification encoder embedding protocol utils features measures audio configuration common",
    "listening": "verification features audio common",
    "verification": "embedding features measures audio common",
    "encoder": "embedding features audio common",
    "embedding": "measures audio configuration common",
    "protocol": "data_preprocess features measures audio common",
    "utils": "features audio common",
    "data_preprocess": "features conditions audio configuration common",
    "features": "audio configuration common",
    "conditions": "audio common",
    "measures": "common",
    "audio": "containers configuration common",
    "containers": "common",
    "configuration": "common",
    "common": ""}
HEAVY = {"tensorflow", "sklearn", "matplotlib", "sounddevice", "numba", "ai_edge_litert", "audiomentations",
         "pyroomacoustics", "av"}


def tree_of(room):
    return ast.parse((ROOT / f"{room}.py").read_text(encoding="utf-8"))


def imported(nodes):
    """Return the names of the modules that import statements among some nodes name."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.partition(".")[0])
    return names


def test_every_file_is_a_room_of_the_house():
    assert {path.stem for path in ROOT.glob("*.py")} == HOUSE.keys()


@pytest.mark.parametrize("room", HOUSE)
def test_imports_run_downwards(room):
    below = list(HOUSE)[list(HOUSE).index(room) + 1:]
    own = imported(ast.walk(tree_of(room))) & (HOUSE.keys() - {room})
    assert own <= set(below)
    assert own == set(HOUSE[room].split())


@pytest.mark.parametrize("room", HOUSE)
def test_what_few_need_loads_when_it_is_used(room):
    assert not imported(tree_of(room).body) & HEAVY


@pytest.mark.parametrize("room", HOUSE)
def test_a_room_is_read_in_one_sitting(room):
    tree, lines = tree_of(room), len((ROOT / f"{room}.py").read_text(encoding="utf-8").splitlines())
    assert lines <= (700 if room == "gui" else 550)
    for node in ast.walk(tree):
        length = getattr(node, "end_lineno", 0) - getattr(node, "lineno", 0) + 1
        if isinstance(node, ast.FunctionDef):
            assert length <= 40, node.name
        if isinstance(node, ast.ClassDef) and node.name != "App":
            assert length <= 200, node.name


@pytest.mark.parametrize("room", HOUSE)
def test_what_is_public_says_what_it_is(room):
    for node in tree_of(room).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            assert ast.get_docstring(node), node.name


def test_only_training_imports_the_tensorflow_encoder():
    importers = {room for room in HOUSE if "encoder" in imported(ast.walk(tree_of(room)))}
    assert importers == {"model"}
    assert "encoder" not in imported(tree_of("model").body)


SCRIPTS = [*sorted((ROOT / "tests").glob("benchmark_*.py")), ROOT / "tests" / "pictures.py"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_that_no_test_runs_uses_what_is_there(path):
    """It is imported as a script is, without the project on the path, and what it takes of our rooms exists."""
    load = f"import runpy; runpy.run_path({path.name!r}, run_name='imported')"
    done = subprocess.run([sys.executable, "-c", load], cwd=path.parent, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    taken = {(node.value.id, node.attr) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in HOUSE}
    assert [f"{room}.{name}" for room, name in sorted(taken)
            if not hasattr(importlib.import_module(room), name)] == []


def test_the_scripts_are_those_of_the_makefile():
    assert len(SCRIPTS) == 10
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(path.name in makefile for path in SCRIPTS if path.stem != "pictures")
