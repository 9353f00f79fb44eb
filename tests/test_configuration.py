"""Flags: the ancestors' names and defaults, what is refused, what a stored value does to a flag."""
import os
import pathlib
import platform
import re
import signal
import subprocess
import sys

import pytest

import common
import configuration
from common import InputError

ROOT = pathlib.Path(configuration.__file__).parent

DEFAULTS = {  # ../README.md of the project's ancestors, with the two changes that DESIGN states
    "noise_path": "./noise", "raw_path": "./raw_data", "train_path": "./train_tisv", "test_path": "./test_tisv",
    "enroll_path": "./enroll", "verify_path": "./verify", "tdsv": False, "verify": False, "sr": 8000, "nfft": 512,
    "window": 0.025, "hop": 0.01, "tdsv_frame": 80, "tisv_frame": 180, "hidden": 128, "proj": 64, "num_layer": 3,
    "restore": False, "model_path": "./model", "model_num": None, "train": False, "speaker_number": 32,
    "utterance_number": 5, "noise_filenum": 16, "loss": "softmax", "optim": "sgd", "lr": 0.01, "beta1": 0.5,
    "beta2": 0.9, "iteration": 60000, "comment": ""}


def test_defaults_are_the_ancestors():
    config = vars(configuration.get_config([]))
    assert {name: config[name] for name in DEFAULTS} == DEFAULTS
    assert config["given"] == set()


@pytest.mark.parametrize(("argv", "value"), [
    (["--train"], True), (["--train", "True"], True), (["--train", "False"], False), (["--train", "no"], False)])
def test_a_boolean_may_stand_alone(argv, value):
    assert configuration.get_config(argv).train is value


def test_given_lists_what_was_typed_even_the_default():
    config = configuration.get_config(["--N", "4", "--sr", "8000"])
    assert config.given == {"speaker_number", "sr"}
    assert config.speaker_number == 4


@pytest.mark.parametrize(("argv", "words"), [
    (["--utterance_number", "0"], "--utterance_number is 0: it must be"),
    (["--train", "--M", "1"], "--utterance_number is 1: GE2E needs at least 2 utterances per speaker"),
    (["--N", "1"], "--speaker_number is 1: GE2E needs at least 2 speakers"),
    (["--lr", "nan"], "--lr is nan: it must be"),
    (["--beta2", "1"], "--beta2 is 1.0: it must be"),
    (["--mask_channels", "40"], "--mask_channels is 40"),
    (["--sr", "8k"], "invalid int value: '8k'"),
    (["--train", "maybe"], "'maybe' is neither True nor False"),
    (["--level", "loud"], "'loud' is neither a number nor none"),
    (["--loss", "triplet"], "invalid choice: 'triplet'"),
    (["--learning_rate", "0.1"], "unrecognized arguments: --learning_rate 0.1"),
    (["--iter", "5"], "unrecognized arguments: --iter 5"),
    (["--train", "--model_num", "5"], "--model_num is 5: training goes on from the last checkpoint"),
    (["--restore", "True"], "--restore is True: it serves training alone; give --train True"),
    (["--allow_missing", "True"], "--allow_missing is True: only a list, --trials FILE, can miss recordings"),
    (["--trials", "list", "--raw_path", "raw", "--N", "9"], "--trials is list: it says what is compared; leave"),
    (["--trials", "list", "--raw_path", "raw", "--tdsv_text", "all"], "what is compared; leave --tdsv_text out"),
    (["--input", "a.wav", "--seconds", "2"], "--seconds is 2: it is for the microphone, --input is heard whole"),
    (["--train", "--restore", "--init_from", "a"], "--init_from is a: --restore True goes on with a run of its own"),
    (["--raw_path", ""], "--raw_path is '': it names nothing; name a place, or leave the flag out"),
    (["--timeline="], "--timeline is '': it names nothing"),
    (["--clean_path", "a"], "--clean_path and --noisy_path belong together"),
])
def test_a_bad_flag_is_one_line_and_exit_code_2(argv, words, fails):
    assert words in fails(configuration.get_config, *argv)


@pytest.mark.parametrize(("argv", "words"), [
    (["--train", "--crop_min", "170", "--crop_max", "160"], "--crop_min is 170: it must not exceed --crop_max 160"),
    (["--train", "--crop_max", "200"], "--crop_max is 200: a stored segment has only --tisv_frame 180 frames; 180 fit"),
    (["--train", "--one_speed"], "--one_speed is True: .* give --speed too"),
    (["--train", "--bend"], "--bend is True: .* give --speed too"),
    (["--train", "--speed", "0.1"], "--crop_max is 180, played faster by --speed 0.1: a stored .* frames; 163 fit"),
    (["--nfft", "128"], "--nfft is 128: a window of 0.025 s at 8000 Hz has 200 samples"),
    (["--min_speech", "0.3"], "--min_speech is 0.3: 0.5 s of speech are the least that gives a segment"),
])
def test_flags_that_do_not_fit_each_other(argv, words):
    with pytest.raises(common.InputError, match=words):
        configuration.check_relations(configuration.get_config(argv))
    configuration.check_relations(configuration.get_config(["--train", "--speed", "0.1", "--crop_max", "163"]))


def test_a_stored_value_replaces_a_default_but_not_a_typed_flag():
    config = configuration.get_config(["--nfft", "512"])
    configuration.adopt(config, {"sr": 16000, "nfft": 512}, "folder")
    assert config.sr == 16000
    with pytest.raises(common.InputError, match=r"--nfft is 512, but folder was made with 1024"):
        configuration.adopt(config, {"nfft": 1024}, "folder")
    configuration.adopt(config, {"top_db": 25}, "folder")                      # JSON may have written 25.0 so
    for name, value in (("top_db", "25"), ("top_db", 500), ("hidden", 1.5), ("train", 1), ("loss", "triplet")):
        with pytest.raises(common.InputError, match=f"folder is damaged: --{name} is "):
            configuration.adopt(config, {name: value}, "folder")
    with pytest.raises(common.InputError, match="folder stores --mels, which no flag is"):
        configuration.adopt(config, {"mels": 80}, "folder")


@pytest.mark.parametrize("error", [common.InputError("no"), PermissionError(13, "no"), KeyboardInterrupt()])
def test_run_turns_errors_into_exit_code_2(error, capsys):
    def work(config):
        raise error

    assert configuration.run(work, []) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_every_flag_has_help_and_every_number_a_range():
    actions = [action for action in configuration.build_parser()._actions if action.dest != "help"]
    assert len(actions) > 40
    assert all(action.help for action in actions)
    numbers = [flag for flag in configuration.flags().values() if flag.type in (int, float)]
    assert len(numbers) > 25
    assert all(flag.low < flag.high for flag in numbers)


def test_help_offers_none_where_it_is_a_value():
    offering = [flag for flag in configuration.flags().values() if "none:" in flag.words]
    assert {flag.name for flag in offering} == {"floor_db", "level"}
    assert all(flag.optional for flag in offering)


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_a_killed_worker_is_one_line():
    """As where memory runs out."""
    with pytest.raises(InputError, match=r"a worker process was killed, most likely for lack of memory, .* --jobs 1"):
        list(common.run_on_cores(signal.raise_signal, [(signal.SIGKILL,)] * 2, jobs=2))


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_workers_ignore_ctrl_c_and_their_parent_does_not():
    before = signal.getsignal(signal.SIGINT)
    found = list(common.run_on_cores(signal.getsignal, [(signal.SIGINT,)] * 4, jobs=2))
    assert found == [signal.SIG_IGN] * 4
    assert signal.getsignal(signal.SIGINT) == before != signal.SIG_IGN


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_workers_keep_the_memory_of_their_arrays():
    code = """
import resource, sys, numpy as np, common
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        arrays = [np.ones(50_000, np.float32) for _ in range(8)]
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(common.work_on(faults) if sys.argv[1:] else faults())
"""
    kept, given_back = (int(subprocess.run([sys.executable, "-c", code, *argument], cwd=ROOT, capture_output=True,
                                           text=True, check=True).stdout) for argument in (["work_on"], []))
    assert kept < 0.1 * given_back                  # pages of 4 KB; the arrays of one round have 391


@pytest.mark.parametrize(("error", "shown"), [(KeyboardInterrupt, ""), (common.InputError, ""),
                                              (RuntimeError, "ALSA complains")])
def test_what_libraries_say_is_shown_with_a_fault_alone(capfd, error, shown):
    def complain():
        with common.quiet_libraries():
            os.write(2, b"ALSA complains")
            raise error("no")

    with pytest.raises(error):
        complain()
    assert capfd.readouterr().err == shown


def test_more_than_twenty_losses_are_counted(capsys):
    common.print_skipped([f"{number}.wav" for number in range(23)], "; look elsewhere")
    assert capsys.readouterr().err.splitlines()[19:] == ["skipped: 19.wav", "skipped: 3 more; look elsewhere"]
    common.print_skipped(["a\n\x1b[2J.wav"])
    assert capsys.readouterr().err == "skipped: a\\n\\x1b[2J.wav\n"


def help_of(capsys, *argv):
    """Return the flags in the help of a command, and its number of lines."""
    with pytest.raises(SystemExit):
        configuration.get_config(argv, "What it does.", "record")
    printed = capsys.readouterr().out
    return set(re.findall(r"^  --(\w+)", printed, re.MULTILINE)), printed.count("\n")


def test_help_shows_the_flags_that_a_command_reads_and_help_all_every_one(capsys):
    read, lines = help_of(capsys, "--help")
    assert {"speaker", "device", "far", "sr", "model_path"} <= read
    assert not read & {"lr", "hidden", "trials", "test_ratio", "noise_filenum"}
    assert lines < 95
    everything, _ = help_of(capsys, "--help", "all")
    assert everything == configuration.flags().keys()
    assert configuration.get_config(["--lr", "0.1"], "", "record").lr == 0.1        # hidden, and accepted everywhere


def test_importing_parses_and_prints_nothing():
    code = "import configuration, data_preprocess, utils, model, test"
    done = subprocess.run([sys.executable, "-c", code, "--unknown"], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("command", [["data_preprocess.py", "--help"], ["test.py", "--help", "all"],
                                     ["-c", "import configuration as c; exit(c.run(lambda config: print(1), []))"]])
def test_output_that_nobody_reads_to_its_end_is_no_error(command):
    read_end, write_end = os.pipe()
    os.close(read_end)
    with open(write_end, "wb") as closed:
        done = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=closed, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (2, b"")           # 1 would say: a different person


def test_a_fault_of_ours_shows_where_and_is_no_verdict(capsys):
    assert configuration.run(lambda config: 1 / 0, []) == 2
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_what_a_terminal_cannot_show_is_escaped():
    code = "import configuration as c; exit(c.run(lambda config: print('\\u0141ukasz'), []))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False,
                          env=os.environ | {"PYTHONIOENCODING": "cp1252"})
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, b"\\u0141ukasz", b"")


def test_another_broken_pipe_is_an_error(capsys):
    def work(config):
        raise BrokenPipeError("a worker is gone")

    assert configuration.run(work, []) == 2
    assert capsys.readouterr().err == "error: a worker is gone\n"
