"""What several test modules use: small corpora and feature folders."""
import numpy as np
import pytest
import voices

import configuration
import data_preprocess

TRAIN_FLAGS = ["--speaker_number", "3", "--utterance_number", "3", "--hidden", "16", "--proj", "8", "--num_layer", "2",
               "--valid_ratio", "0.5", "--valid_every", "4", "--optim", "adam", "--lr", "0.01"]


def pytest_addoption(parser):
    parser.addoption("--no-skips", action="store_true", help="fail if any test was skipped")


def pytest_sessionfinish(session):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--no-skips") and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """8 synthetic voices in train/, 3 in test/, 6 utterances of 2 to 3 s each."""
    folder = tmp_path_factory.mktemp("corpus")
    voices.write_corpus(folder / "train", range(8), 6, seconds=(2.0, 3.0))
    voices.write_corpus(folder / "test", range(8, 11), 6, seconds=(2.0, 3.0))
    return folder


@pytest.fixture(scope="session")
def features(corpus, tmp_path_factory):
    """The corpus preprocessed by the command, in train/ and test/."""
    folder = tmp_path_factory.mktemp("features")
    code = data_preprocess.main(["--raw_path", str(corpus), "--train_path", str(folder / "train"),
                                 "--test_path", str(folder / "test"), "--jobs", "1"])
    assert code == 0
    return folder


@pytest.fixture
def write_features(tmp_path):
    """Return a function that writes a feature folder in which each number tells speaker, row and frame."""

    def write(speakers, name="features", **settings):
        folder = tmp_path / name
        folder.mkdir()
        flags = data_preprocess.feature_settings(configuration.get_config([])) | settings
        configuration.write_json(folder / "manifest.json", {"settings": flags})
        for index, counts in enumerate(speakers):
            rows = sum(counts)
            values = 1e6 * index + 1e3 * np.arange(rows)[:, None, None] + np.arange(180) + np.zeros((40, 1))
            np.save(folder / f"s{index}.npy", values.astype(np.float32), allow_pickle=False)
            firsts = np.cumsum([0, *counts])
            entries = [{"file": f"{i}.wav", "first": int(first), "count": count, "seconds": 2.0, "speech_seconds": 1.8,
                        "dropped": "" if count else "is silent"}
                       for i, (first, count) in enumerate(zip(firsts, counts, strict=False))]
            configuration.write_json(folder / f"s{index}.json", {"utterances": entries})
        return folder

    return write


@pytest.fixture
def fails(capsys):
    """Return a function that runs a main and returns the one line it fails with; the exit code must be 2."""

    def run(main, *argv):
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in argv])
        except SystemExit as stop:
            code = stop.code
        lines = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
        assert code == 2
        assert len(lines) == 1
        return lines[0]

    return run
