"""The commands of the README, one after the other, each in a process of its own, on a few synthetic voices."""
import json
import pathlib
import re
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
import sklearn.metrics
from conftest import TRAIN_FLAGS

import test as evaluation_script

ROOT = pathlib.Path(evaluation_script.__file__).parent
EER = re.compile(r"^EER : (0\.\d+) \(thres:(-?\d\.\d+), FAR:(\d\.\d+), FRR:(\d\.\d+)\)$", re.MULTILINE)


def command(folder, *argv):
    """Run a script of the project in a folder; return what it printed; it must succeed without a warning."""
    done = subprocess.run([sys.executable, ROOT / argv[0], *map(str, argv[1:])], cwd=folder, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr
    words = re.findall(r"(?i)^.*(?:warning|absl|onednn|cuda|traceback).*$", done.stderr, re.MULTILINE)
    assert not words
    return done.stdout


@pytest.fixture(scope="module")
def job(corpus, tmp_path_factory):
    """A folder in which preprocessing, training and evaluation ran with their default paths; what they printed."""
    folder = tmp_path_factory.mktemp("job")
    heard = command(folder, "data_preprocess.py", "--raw_path", corpus)
    learnt = command(folder, "model.py", "--train", "True", "--iteration", 8, *TRAIN_FLAGS)
    tested = command(folder, "test.py")
    return folder, heard, learnt, tested


def test_each_command_says_what_it_did(job):
    folder, heard, learnt, tested = job
    assert re.search(r"^speakers +8 +3$", heard, re.MULTILINE)
    assert "trainable numbers" in learnt
    assert "training: 4 speakers" in learnt
    assert EER.search(tested)
    assert "3 speakers, each enrolled with 5 utterances" in tested
    assert "3 target and 6 non-target trials" in tested
    assert "x real time" in tested
    assert sorted(path.name for path in folder.iterdir()) == ["model", "report", "test_tisv", "train_tisv"]


def test_the_report_holds_the_figures_that_were_printed(job):
    folder, _, _, tested = job
    report = json.loads((folder / "report" / "evaluation.json").read_text())
    printed = [float(number) for number in EER.search(tested).groups()]
    point = report["points"]["eer"]
    assert [round(value, 4) for value in (report["eer"], point["threshold"], point["far"], point["frr"])] == printed
    assert (report["target_trials"], report["non_target_trials"], report["probes_without_speech"]) == (3, 6, 0)
    assert np.array(report["similarity"]).shape == (3, 1, 3)
    lines = [line.split() for line in (folder / "report" / "scores.txt").read_text().splitlines()]
    assert len(lines) == 9
    labels = np.array([label == "target" for _, label, *_ in lines])
    assert [enrolled == probe.split("/")[0] for _, _, enrolled, probe in lines] == labels.tolist()
    scores = np.array([float(line[0]) for line in lines])
    assert report["measures"]["auc"]["value"] == pytest.approx(sklearn.metrics.roc_auc_score(labels, scores), abs=1e-6)
    assert "fewer than 30 target trials" in tested


@pytest.mark.parametrize("name", ["det.png", "similarity.png", "scores.png", "map.png", "training.png"])
def test_the_pictures_show_something(job, name):
    picture = matplotlib.image.imread(job[0] / "report" / name)
    assert min(picture.shape[:2]) > 400
    assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 20


def test_model_py_without_train_tests(job):
    printed = command(job[0], "model.py")
    assert EER.search(printed).groups() == EER.search(job[3]).groups()


def test_audio_gives_the_figures_of_its_features(job, corpus):
    folder, _, _, tested = job
    printed = command(folder, "test.py", "--raw_path", corpus, "--report_path", "other")
    assert EER.search(printed).groups() == EER.search(tested).groups()
    caches = list((folder / "cache").iterdir())
    assert len(caches) == 1
    stamps = {path.name: path.stat().st_mtime_ns for path in caches[0].glob("voice*")}
    command(folder, "test.py", "--raw_path", corpus, "--report_path", "other")
    assert stamps == {path.name: path.stat().st_mtime_ns for path in caches[0].glob("voice*")}


def test_thresholds_of_a_test_set_are_stored_and_used(job):
    folder = job[0]
    printed = command(folder, "test.py", "--store_threshold", "True", "--report_path", "other")
    eer, threshold, far, frr = EER.search(printed).groups()
    assert f"thresholds: EER at {threshold}; the trials show none for FAR 1.0%, FAR 0.1%" in printed
    again = command(folder, "test.py", "--report_path", "other")
    source = "3 test speakers, 5 enrolment utterances each"
    assert f"at the threshold {threshold}, measured on {source}: FAR:{far}, FRR:{frr}" in again
    assert eer in again


@pytest.mark.parametrize(("argv", "words"), [
    (["test.py", "--model_path", "nowhere"], "--model_path is nowhere: there is no model"),
    (["model.py", "--test_path", "nowhere"], "nowhere holds no features"),
    (["test.py", "--raw_path", "nowhere"], "--raw_path is"),
    (["data_preprocess.py", "--raw_path", "nowhere"], "--raw_path is nowhere: there is no such folder")])
def test_an_error_is_one_line_and_exit_code_2(job, argv, words):
    done = subprocess.run([sys.executable, ROOT / argv[0], *argv[1:]], cwd=job[0], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_readmes_pictures_are_there_and_small():
    names = re.findall(r"!\[[^\]]+\]\((docs/[a-z]+\.png)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert names == ["docs/window.png", "docs/report.png", "docs/talk.png"]
    assert all(1000 < (ROOT / name).stat().st_size < 100_000 for name in names)


def test_the_readmes_flags_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    known = subprocess.run([sys.executable, ROOT / "test.py", "--help", "all"], capture_output=True, text=True,
                           check=True)
    flags = set(re.findall(r"(--[a-z_]+|--[NM]\b)", readme))
    assert len(flags) > 15
    assert flags - {"--logdir", "--nthreads", "--nworkers"} <= set(re.findall(r"(--[a-z_]+|--[NM]\b)", known.stdout))
