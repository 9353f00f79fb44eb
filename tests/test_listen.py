"""The commands that listen, in a virtual environment that requirements-listen.txt made: TensorFlow is not installed."""
import pathlib
import re
import subprocess

import pytest

import configuration

ROOT = pathlib.Path(configuration.__file__).parent
PYTHON = ROOT / ".venv-listen" / "bin" / "python"

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="make test makes .venv-listen")


@pytest.fixture
def listen(tmp_path):
    """Return a function that runs a command in that environment; it returns exit code, output and errors."""

    def run(*argv):
        done = subprocess.run([PYTHON, *map(str, argv)], cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    return run


def test_tensorflow_is_not_there(listen):
    assert listen("-c", "import tensorflow")[0] == 1


def test_requirements_are_those_of_the_whole_without_tensorflow():
    """What listens and what trains are tested with one set of versions."""
    whole, light = ((ROOT / name).read_text().split("\n") for name in ("requirements.txt", "requirements-listen.txt"))
    assert whole[0] == "-r requirements-listen.txt"
    assert not [line for line in light if "tensor" in line]


def test_files_are_verified_with_the_pretrained_model(listen, voice, corpus):
    code, printed, errors = listen(ROOT / "model.py", "--verify", "--enroll_path", voice, "--verify_path",
                                   voice / "00.wav")
    assert code == 0
    assert printed.startswith("Same person: 00.wav and voice08")
    assert re.fullmatch(r"model: .*pretrained\n", errors)


def test_a_voice_is_enrolled_and_verified(listen, voice, tmp_path):
    assert listen(ROOT / "record.py", "--speaker", "anna", "--input", voice / "00.wav")[0] == 0
    code, printed, _ = listen(ROOT / "record.py", "--verify", "--input", voice / "01.wav", "--threshold", "-1")
    assert (code, printed.splitlines()[0]) == (0, "Same person: probe and anna")


def test_a_voice_is_verified_and_followed_while_it_speaks(listen, voice, tmp_path):
    assert listen(ROOT / "record.py", "--speaker", "anna", "--input", voice / "00.wav")[0] == 0
    code, printed, errors = listen(ROOT / "record.py", "--verify", "--live", "--input", voice / "00.wav")
    assert (code, printed.splitlines()[0]) == (0, "Same person: probe and anna"), errors
    assert "s of speech, " in errors
    code, printed, errors = listen(ROOT / "record.py", "--live", "--input", voice / "00.wav", "--timeline", "who.csv")
    assert (code, printed.splitlines()[-1].split(":")[0]) == (0, "who.csv"), errors
    assert ",anna," in (tmp_path / "who.csv").read_text()


def test_a_model_is_evaluated(listen, corpus, tmp_path):
    code, printed, errors = listen(ROOT / "test.py", "--model_path", ROOT / "pretrained", "--raw_path", corpus)
    assert code == 0, errors
    assert re.search(r"^EER : 0\.\d{4} ", printed, re.MULTILINE)
    assert (tmp_path / "report" / "report.html").exists()


def test_the_windows_process_loads_and_draws(listen, voice, tmp_path):
    script = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import configuration, gui, service
listener = service.Service(configuration.get_config(["--model_path", {str(ROOT / 'pretrained')!r}]))
listener.load()
for take in (0, 1):
    listener.enroll("anna", f"{voice}/0{{take}}.wav")
print(listener.verify("{voice}/02.wav").scores)
for name in ("spectrum", "likeness", "map"):
    assert listener.draw(name, 300, 200, 96)[:4] == b"\\x89PNG"
"""
    code, printed, errors = listen("-c", script)
    assert (code, errors) == (0, "")
    assert printed.startswith("[('anna', ")


def test_training_asks_for_tensorflow(listen, made_features):
    code, _, errors = listen(ROOT / "model.py", "--train", "--train_path", made_features / "train", "--N", 3)
    assert code == 2
    assert errors == ("error: TensorFlow is needed for training and export and cannot be loaded (No module named "
                      "'tensorflow'): pip install -r requirements.txt\n")


def test_conditions_ask_for_what_makes_them(listen, corpus):
    code, _, errors = listen(ROOT / "test.py", "--model_path", ROOT / "pretrained", "--raw_path", corpus / "test",
                             "--conditions", "True")
    assert code == 2
    assert errors.splitlines()[-1] == (
        "error: audiomentations is needed for copies and conditions and cannot be loaded (No module named "
        "'audiomentations'): pip install -r requirements.txt")
