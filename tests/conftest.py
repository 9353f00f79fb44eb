"""What several test modules use: small corpora and feature folders."""
import contextlib
import fractions
import functools
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading
import time

import av
import numpy as np
import pytest
import soundfile
import voices

import common
import configuration
import data_preprocess
import embedding
import features
import measures
import protocol
import service

TRAIN_FLAGS = ["--speaker_number", "3", "--utterance_number", "3", "--hidden", "16", "--proj", "8", "--num_layer", "2",
               "--valid_ratio", "0.5", "--valid_every", "4", "--optim", "adam", "--lr", "0.01"]


def pytest_addoption(parser):
    parser.addoption("--no-skips", action="store_true", help="fail if any test was skipped")


def pytest_sessionfinish(session):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")          # None in a worker of pytest-xdist
    if session.config.getoption("--no-skips") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


CONTAINERS = {       # file: codec and what else write_container is told; AMR and Opus have rates of their own
    "a.m4a": ("aac", {}), "a.mp4": ("aac", {"options": {"movflags": "faststart"}}),
    "a.aac": ("aac", {"format": "adts"}),
    "fragments.mp4": ("aac", {"options": {"movflags": "empty_moov+default_base_moof", "frag_duration": "300000"}}),
    "a.3gp": ("aac", {}), "a.3g2": ("aac", {}), "lossless.m4a": ("alac", {}), "a.mov": ("pcm_s16le", {}),
    "a.mka": ("flac", {}), "a.mkv": ("libmp3lame", {}), "float.mkv": ("pcm_f32le", {}),
    "a.webm": ("libopus", {"rate": 48000}), "browser.webm": ("libopus", {"rate": 48000, "options": {"live": "1"}}),
    "a.amr": ("libopencore_amrnb", {"rate": 8000, "bit_rate": 12200}),
    "phone.3gp": ("libopencore_amrnb", {"rate": 8000, "bit_rate": 12200})}


def write_container(path, wave, sr, codec, *, rate=None, bit_rate=64000, video=False, encoder_options=None, **options):
    """Write samples (S,), (S, 2) or (S, 8) at sr as PyAV encodes them, at a rate of its own, or beside a video."""
    layout = {1: "mono", 2: "stereo", 8: "7.1"}[wave.shape[1] if wave.ndim == 2 else 1]
    with av.open(path, "w", **options) as container:
        track = container.add_stream(codec, rate=rate or sr, layout=layout, bit_rate=bit_rate,
                                     options=encoder_options) if codec else None
        screen = container.add_stream("mpeg4", rate=10, width=32, height=32) if video else None
        if screen:
            for number in range(1 + 10 * len(wave) // sr):
                picture = av.VideoFrame(32, 32, "yuv420p")
                picture.pts, picture.time_base = number, fractions.Fraction(1, 10)
                container.mux(screen.encode(picture))
            container.mux(screen.encode(None))
        if track:
            samples = np.round(wave.reshape(1, -1) * 2**15).clip(-2**15, 2**15 - 1).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = sr, 0, fractions.Fraction(1, sr)
            container.mux([*track.encode(frame), *track.encode(None)])


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """8 synthetic voices in train/, 3 in test/, 6 utterances of 2 to 3 s each."""
    folder = tmp_path_factory.mktemp("corpus")
    voices.write_corpus(folder / "train", range(8), 6, seconds=(2.0, 3.0))
    voices.write_corpus(folder / "test", range(8, 11), 6, seconds=(2.0, 3.0))
    return folder


@pytest.fixture(scope="session")
def voice(corpus):
    """The folder of one synthetic voice."""
    return corpus / "test" / "voice08"


@pytest.fixture(scope="session")
def made_features(corpus, tmp_path_factory):
    """The corpus preprocessed by the command, in train/ and test/."""
    folder = tmp_path_factory.mktemp("features")
    code = data_preprocess.main(["--raw_path", str(corpus), "--train_path", str(folder / "train"),
                                 "--test_path", str(folder / "test"), "--jobs", "1"])
    assert code == 0
    return folder


def train_flags(made_features, folder, *argv):
    """Return the flags that train a small model on the preprocessed corpus."""
    return ["--train", "--train_path", str(made_features / "train"), "--model_path", str(folder), *TRAIN_FLAGS,
            *map(str, argv)]


@pytest.fixture(scope="session")
def trained(made_features, tmp_path_factory):
    """A model of 8 iterations, validated at 4 and 8."""
    import model
    folder = tmp_path_factory.mktemp("trained") / "model"
    assert model.main(train_flags(made_features, folder, "--iteration", 8)) == 0
    return folder


@pytest.fixture
def knowing(trained, tmp_path):
    """The trained model with a calibration by hand: scale 10, offset -5, less by 2 for each e-fold of probe speech."""
    folder = tmp_path / "knowing"
    shutil.copytree(trained, folder)
    stored = json.loads((folder / "thresholds.json").read_text())
    terms = len(measures.TERMS)
    stored["calibration"] = {"scale": [10.0] + terms * [0.0], "offset": [-5.0, -2.0] + (terms - 1) * [0.0]}
    for point in stored["points"].values():
        point |= {"llr": 1.5, "threshold": 0.65}
    (folder / "thresholds.json").write_text(json.dumps(stored))
    return folder


@pytest.fixture
def deciding(knowing):
    """The same model, which also knows when it is sure: below a log-likelihood ratio of -1.98, above one of 3.61."""
    stored = json.loads((knowing / "thresholds.json").read_text())
    for point in stored["points"].values():
        point |= {"far": 0.02, "frr": 0.1, "far_all": 0.01, "frr_all": 0.5}
    (knowing / "thresholds.json").write_text(json.dumps(stored))
    return knowing


@pytest.fixture
def write_features(tmp_path):
    """Return a function that writes a feature folder in which each number tells speaker, row and frame."""

    def write(speakers, name="features", **settings):
        folder = tmp_path / name
        folder.mkdir()
        flags = features.feature_settings(configuration.get_config([])) | settings
        common.write_json(folder / "manifest.json", {"settings": flags})
        for index, counts in enumerate(speakers):
            rows = sum(counts)
            values = 1e6 * index + 1e3 * np.arange(rows)[:, None, None] + np.arange(180) + np.zeros((40, 1))
            np.save(folder / f"s{index}.npy", values.astype(np.float32), allow_pickle=False)
            firsts = np.cumsum([0, *counts])
            entries = [{"file": f"{i}.wav", "first": int(first), "count": count, "seconds": 2.0, "speech_seconds": 1.8,
                        "dropped": "" if count else "is silent"}
                       for i, (first, count) in enumerate(zip(firsts, counts, strict=False))]
            common.write_json(folder / f"s{index}.json", {"utterances": entries})
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


@pytest.fixture
def block_tensorflow(tmp_path, monkeypatch):
    """Let processes that are started in the test find this project, and no TensorFlow."""
    for name in ("tensorflow", "keras", "torch"):
        (tmp_path / "blocked" / name).mkdir(parents=True)
        (tmp_path / "blocked" / name / "__init__.py").write_text(f"raise ImportError('{name} is blocked')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'blocked'}{os.pathsep}{pathlib.Path(common.__file__).parent}")


class Microphone:
    """A PulseAudio daemon of its own whose only source loops a wave that a thread feeds it at the speed of sound."""

    def __init__(self, folder):
        self.folder, self.wave, self.fed = folder, None, threading.Event()
        self.daemon = None

    @property
    def environment(self):
        """Return the environment in which PortAudio finds this microphone alone, as the device `pulse`."""
        return {**os.environ, "XDG_RUNTIME_DIR": str(self.folder), "HOME": str(self.folder),
                "PULSE_SERVER": f"unix:{self.folder}/native"}

    def start(self, sr):
        """Start the daemon with a silent source at sr."""
        modules = [f"module-native-protocol-unix auth-anonymous=1 socket={self.folder}/native",
                   f"module-pipe-source source_name=mic file={self.folder}/pipe rate={sr} channels=1 format=s16le"]
        command = ["pulseaudio", "-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1", "--disable-shm"]
        self.daemon = subprocess.Popen([*command, *(f"--load={module}" for module in modules)], env=self.environment,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not all((self.folder / name).exists() for name in ("native", "pipe")):
            assert time.monotonic() < deadline, "PulseAudio does not start"
            time.sleep(0.02)

    def wait_for_listener(self):
        """Wait until a program listens to the source, which has nothing to say yet."""
        deadline = time.monotonic() + 60
        while not subprocess.run(["pactl", "list", "short", "source-outputs"], env=self.environment, check=True,
                                 capture_output=True).stdout:
            assert time.monotonic() < deadline, "nobody listens"
            time.sleep(0.02)

    def speak(self, path):
        """Start with a recording, and let this process look for microphones anew: it may know of none."""
        import sounddevice
        wave, sr = soundfile.read(path, dtype="int16")
        self.start(sr)
        self.play(wave, sr)
        sounddevice._terminate()
        sounddevice._initialize()

    def play(self, wave, sr):
        """Loop int16 samples (S,) into the source."""
        self.wave = wave
        threading.Thread(target=self.feed, args=(np.asarray(wave, "<i2"), sr), daemon=True).start()

    def feed(self, wave, sr):
        """Write a tenth of a second at a time until the daemon is gone."""
        block, count, started = sr // 10, 0, time.monotonic()
        with contextlib.suppress(OSError), open(self.folder / "pipe", "wb", buffering=0) as pipe:
            while not self.fed.is_set():
                pipe.write(np.take(wave, np.arange(count * block, (count + 1) * block), mode="wrap").tobytes())
                count += 1
                time.sleep(max(0, started + count / 10 - time.monotonic()))

    def stop(self):
        """Stop feeding and kill the daemon."""
        self.fed.set()
        if self.daemon:
            self.daemon.kill()
            self.daemon.wait()


@pytest.fixture
def microphone(monkeypatch):
    """A virtual Microphone, not yet started; programs started in the test find it in their environment."""
    if not shutil.which("pulseaudio"):
        pytest.skip("needs pulseaudio, libasound2-plugins and libportaudio2")
    with tempfile.TemporaryDirectory(prefix="mic") as folder:        # short: the path of a socket has 108 bytes
        microphone = Microphone(pathlib.Path(folder))
        for name in ("XDG_RUNTIME_DIR", "HOME", "PULSE_SERVER"):
            monkeypatch.setenv(name, microphone.environment[name])
        yield microphone
        microphone.stop()


@pytest.fixture
def engine(trained, tmp_path):
    """A real model's process; its folders are below tmp_path."""
    engine = service.Engine(configuration.get_config([
        "--model_path", str(trained), "--enroll_path", str(tmp_path / "enroll"), "--verify_path",
        str(tmp_path / "verify")]))
    yield engine
    engine.close()
    assert not engine.process.is_alive()


def evaluate(encoder, speakers, m):
    """Return protocol.Evaluation of speakers embedded by an encoder, TensorFlow's or LiteRT's."""
    return protocol.evaluate(functools.partial(embedding.embed_speaker, encoder), speakers, m)
