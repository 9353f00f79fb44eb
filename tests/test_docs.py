"""What the documents show runs: README's lines as a library, and the notebook."""
import ast
import importlib
import pathlib
import re
import subprocess
import sys

import nbclient
import nbformat
import numpy as np
import pytest

import configuration
import embedding
import verification

ROOT = pathlib.Path(configuration.__file__).parent


def test_readmes_lines_go_from_a_file_to_a_d_vector_and_a_score(block_tensorflow, voice, tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## As a library\n")[2].partition("\n## ")[0]
    (lines,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(lines.splitlines()) == 5
    for name, file in (("anna.wav", voice / "00.wav"), ("probe.wav", voice / "01.wav"),
                       ("pretrained", ROOT / "pretrained")):
        (tmp_path / name).symlink_to(file)
    done = subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    vector, score = done.stdout.strip("[").split("]")
    verifier = verification.Verifier(configuration.get_config(["--model_path", str(embedding.PRETRAINED)]))
    anna, probe = (next(verifier.probes(voice / name)).centroid for name in ("00.wav", "01.wav"))
    np.testing.assert_allclose(np.array(vector.split(), float), probe, atol=1e-6)
    assert float(score) == pytest.approx(anna @ probe, abs=1e-6)


@pytest.mark.parametrize("name", ["README.md", "docs/experiments.md"])
def test_what_the_lines_in_a_document_call_exists(name):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for lines in blocks:
        nodes = list(ast.walk(ast.parse(lines)))
        imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        rooms = {room: importlib.import_module(room) for room in imported if (ROOT / f"{room}.py").exists()}
        called = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
        assert rooms
        assert [f"{node.value.id}.{node.attr}" for node in called
                if node.value.id in rooms and not hasattr(rooms[node.value.id], node.attr)] == []


def test_the_notebook_runs_and_is_kept_without_what_it_prints(block_tensorflow, tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))                   # no kernel but this Python's
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    tour, before = nbformat.read(ROOT / "docs" / "tour.ipynb", as_version=4), set((ROOT / "docs").iterdir())
    cells = [cell for cell in tour.cells if cell.cell_type == "code"]
    assert [(cell.outputs, cell.execution_count) for cell in cells] == [([], None)] * len(cells)
    nbclient.NotebookClient(tour, timeout=120, resources={"metadata": {"path": ROOT / "docs"}}).execute()
    outputs = [output for cell in cells for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert printed.startswith("Same person: 01.wav and 00\n  score 0.")
    assert re.search(r"^EER : 0\.\d{4} ", printed, re.MULTILINE)
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) == 3
    assert set((ROOT / "docs").iterdir()) == before
