"""Lists of trials: both forms, the recordings they name, their scores, what is missing."""
import json

import numpy as np
import pytest
import soundfile

import audio
import configuration
import embedding
import protocol
import test as evaluation_script
from common import InputError

LIST = """1 voice08/00.wav voice08/01.wav
0 voice08/00.wav voice09/01.wav
1 voice09/00.wav voice09/02.wav
0 voice10/03.wav voice09/02.wav
"""


@pytest.fixture
def score(trained, corpus, tmp_path, capsys):
    """Return a function that scores a list, a text, by the command; it returns the exit code and what was printed."""

    def run(text, *argv):
        (tmp_path / "list").write_text(text)
        capsys.readouterr()
        code = evaluation_script.main(["--model_path", str(trained), "--raw_path", str(corpus / "test"), "--trials",
                                       str(tmp_path / "list"), "--report_path", str(tmp_path / "report"), *argv])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def test_scores_are_cosines_of_whole_recordings(score, trained, corpus, tmp_path):
    code, printed = score(LIST)
    assert code == 0
    encoder, config = embedding.load_encoder(trained)

    def d_vector(name):
        return embedding.embed(encoder, audio.segments(
            audio.load_audio(corpus / "test" / name, config.sr), config))

    lines = [line.split() for line in (tmp_path / "report" / "scores.txt").read_text().splitlines()]
    assert [(label, enrolled, probe) for _, label, enrolled, probe in lines] == [
        ("target" if line[0] == "1" else "nontarget", *line.split()[1:]) for line in LIST.splitlines()]
    assert [float(line[0]) for line in lines] == pytest.approx(
        [float(d_vector(enrolled) @ d_vector(probe)) for *_, enrolled, probe in lines], abs=1e-5)
    assert "2 target and 2 non-target trials" in printed
    assert json.loads((tmp_path / "report" / "evaluation.json").read_text())["target_trials"] == 2


def test_kaldis_form_names_the_same_trials(score, tmp_path):
    assert score(LIST)[0] == 0
    scores = (tmp_path / "report" / "scores.txt").read_text().split()[::4]
    kaldi = "\n".join(f"{enrolled[:-4]} {probe} {'target' if label == '1' else 'nontarget'}"
                      for label, enrolled, probe in map(str.split, LIST.splitlines()))
    assert score(kaldi)[0] == 0
    assert (tmp_path / "report" / "scores.txt").read_text().split()[::4] == scores


def test_names_in_kaldis_form_may_be_0_and_1(tmp_path):
    (tmp_path / "list").write_text("0 1 target\n1 2 nontarget\n1 a b\n", encoding="utf-8-sig")
    assert evaluation_script.read_trials(tmp_path / "list") == [("0", "1", True), ("1", "2", False), ("a", "b", True)]


def test_names_may_hold_blanks_between_tabs_and_labels_capitals(tmp_path):
    (tmp_path / "list").write_text("1\tanna b/1.wav\tanna b/2.wav\na b NONTARGET\n")
    assert evaluation_script.read_trials(tmp_path / "list") == [("anna b/1.wav", "anna b/2.wav", True),
                                                                ("a", "b", False)]


def test_kaldis_names_of_voxceleb_are_paths(tmp_path):
    """And a path without its suffix goes before a file of that name elsewhere."""
    for name in ("id1/x-Y/1.wav", "id2/x-Y/1.wav", "a.wav", "sub/a.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / name, np.zeros(9), 8000)
    found = evaluation_script.find_recordings(["id1-x-Y-1", "id2-x-Y-1", "a", "sub/a"], tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in found.values()] == [
        "id1/x-Y/1.wav", "id2/x-Y/1.wav", "a.wav", "sub/a.wav"]


def test_recordings_are_found_by_path_or_by_name(tmp_path):
    for name in ("a/x/1.wav", "a/y/2.wav", "b/y/2.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / name, np.zeros(9), 8000)
    found = evaluation_script.find_recordings(["a/x/1.wav", "a/y/2", "a/x/1.flac", "1", "1.wav", "2", "c/1.wav"],
                                               tmp_path)
    assert found == {**dict.fromkeys(("a/x/1.wav", "a/x/1.flac", "1", "1.wav"), tmp_path / "a/x/1.wav"),
                     "a/y/2": tmp_path / "a/y/2.wav", "2": None, "c/1.wav": None}     # two recordings are called 2


def test_recordings_are_found_however_their_path_is_written(tmp_path, monkeypatch):
    """Absolute, from here, and with accents as macOS writes them."""
    path = tmp_path / "raw" / "Jose\u0301" / "1.wav"
    path.parent.mkdir(parents=True)
    soundfile.write(path, np.zeros(9), 8000)
    (tmp_path / "link").symlink_to("raw")
    monkeypatch.chdir(tmp_path)
    names = ["./Jos\u00e9/1", "Jose\u0301//1.wav", str(path), f"{tmp_path}/link/Jos\u00e9/1.wav",
             str(tmp_path / "1.wav")]
    found = evaluation_script.find_recordings(names, "link")
    assert [found[name] and found[name].resolve() for name in names] == [path] * 4 + [None]


@pytest.mark.parametrize(("trials", "same"), [
    ([("a/1", "a/2", True), ("a/1", "b/1", False)], [1, 0]), ([("a-1", "a-2", True), ("a-1", "b-1", False)], [1, 0]),
    ([("ar-7c/1", "ar-7c/2", True), ("ar-7c/3", "ar-7c/4", True), ("ar-7c/1", "ar-8d/1", False)], [1, 1, 0]),
    ([("ar-7c-1", "ar-7c-2", True), ("ar-7c-3", "ar-7c-4", True), ("ar-7c-1", "ar-8d-1", False)], [1, 1, 0]),
    ([("x/7c/1", "x/7c/2", True), ("x/7c/3", "x/7c/4", True), ("x/7c/1", "x/8d/1", False)], [1, 1, 0]),
    ([("p1_1.wav", "p1_2.wav", True), ("p1_3.wav", "p1_4.wav", True), ("p1_1.wav", "p2_1.wav", False)], [1, 1, 0]),
    ([("x1", "x2", True), ("x2", "x3", True), ("x1", "y1", False), ("x3", "y1", False)], [1, 1, 0, 0])])
def test_speakers_come_from_names_or_from_target_trials(trials, same):
    speakers, notes = protocol.number_speakers(trials)
    assert len(notes) == (trials[0][0] == "x1")
    assert (speakers[:, 0] == speakers[:, 1]).tolist() == [bool(value) for value in same]
    assert len(set(speakers.ravel().tolist())) == 2


def test_intervals_and_notes_do_not_depend_on_how_names_are_written(score, trained, corpus, tmp_path):
    """By path, absolute or by name; voice00 trained the model, whose name only the file's place tells."""
    text = LIST + "1 voice01/00.wav voice01/01.wav\n"
    (tmp_path / "raw").mkdir()
    for name in {word for line in text.splitlines() for word in line.split()[1:]}:
        speaker, file = name.split("/")
        path = tmp_path / "raw" / speaker / f"{speaker}{file}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(next(corpus.glob(f"*/{name}")).read_bytes())
    found = []
    for form in ("{0}/{0}{1}", f"{tmp_path}/raw/{{0}}/{{0}}{{1}}", "{0}{1}"):
        lines = [[line.split()[0], *(form.format(*word.split("/")) for word in line.split()[1:])]
                 for line in text.splitlines()]
        code, printed = score("\n".join(map(" ".join, lines)), "--raw_path", str(tmp_path / "raw"))
        assert code == 0
        assert "1 speakers carry names of speakers that the model was trained or validated on" in printed
        assert "names do not tell who speaks" not in printed
        found.append(json.loads((tmp_path / "report" / "evaluation.json").read_text())["measures"])
    assert found[0] == found[1] == found[2]


def test_a_name_may_stand_anywhere_in_a_path():
    assert {"wav", "ann", "ann-1", "x_y", "x"} <= protocol.people_in("wav/x_y/ann-1_2.wav")


def test_where_no_name_tells_who_speaks_that_is_said(score, corpus, tmp_path):
    (tmp_path / "raw").mkdir()
    for place, name in enumerate(("voice08/00", "voice08/01", "voice09/00")):
        (tmp_path / "raw" / f"r{place}.wav").write_bytes((corpus / "test" / f"{name}.wav").read_bytes())
    code, printed = score("1 r0 r1\n0 r0 r2\n", "--raw_path", str(tmp_path / "raw"))
    assert code == 0
    assert "note: the files' names do not tell who speaks: 2 groups of recordings" in printed


def test_what_is_missing_is_named_and_stops_the_run(score, corpus, tmp_path, trained):
    text = LIST + "1 voice08/00.wav gone/9.wav\n"
    code, printed = score(text)
    assert code == 2
    assert "skipped: gone/9.wav is not in" in printed
    assert "1 of its 7 recordings are missing or hold no speech, which 1 of 5 trials need" in printed
    code, printed = score(text, "--allow_missing", "True")
    assert code == 0
    assert "note: 1 of 5 trials are left out" in printed
    assert "2 target and 2 non-target trials" in printed


def test_what_is_missing_is_said_before_any_work(score, monkeypatch):
    monkeypatch.setattr(embedding, "embed_files", lambda *arguments: pytest.fail("it embeds"))
    code, printed = score(LIST + "1 voice08/00.wav gone/9.wav\n")
    assert code == 2
    assert "1 of its 7 recordings are missing" in printed


def test_names_that_are_there_more_than_once_are_said_to_be(score):
    """They are no pair that is called the same person and another."""
    code, printed = score("1 00.wav 01.wav\n0 00.wav 01.wav\n")
    assert code == 2
    assert "2 of its 2 recordings are missing" in printed
    assert "same person and as another" not in printed


def test_a_threshold_by_hand_has_its_error_rates(score):
    code, printed = score(LIST, "--threshold", "-1")
    assert code == 0
    assert "at the threshold -1.0000, given by --threshold: FAR:1.0000, FRR:0.0000" in printed


@pytest.mark.parametrize(("flags", "words"), [
    (("--test_path", "elsewhere"), "--raw_path names what is tested; give one of the two"),
    (("--noise_raw_path", "elsewhere"), "it serves --conditions True; give that, too")])
def test_flags_that_serve_nothing_are_refused(score, flags, words):
    code, printed = score(LIST, *flags)
    assert code == 2
    assert words in printed


@pytest.mark.parametrize(("text", "words"), [
    ("1 a.wav\n", "line 1 is '1 a.wav', which is neither"), ("\n2 a b\n", "line 2 is '2 a b'"),
    ("\n", "it holds 0 target and 0 other trials, and error rates need both"),
    ("1 x y\n1 x z\n", "it holds 2 target and 0 other trials"),
    ("1 x y\n0 x z\n", "and 0 target and 0 other trials are left")])
def test_a_list_that_cannot_be_scored_is_one_line(score, text, words):
    code, printed = score(text, "--allow_missing")
    assert code == 2
    assert words in printed


def test_a_list_that_loses_all_trials_of_a_kind_says_so(score):
    code, printed = score("1 voice08/00 voice08/01\n1 voice09/00 voice09/01\n0 voice08/00 gone/x\n", "--allow_missing")
    assert code == 2
    assert "1 of its 5 recordings are missing or hold no speech, and 2 target and 0 other trials are left" in printed


def test_what_a_list_does_not_tell_is_noted(score, trained, tmp_path):
    """Trials that are there twice, recordings that are compared with themselves, speakers of the training."""
    again = LIST + "1 voice08/00 voice08/01.wav\n1 voice08/02.wav voice08/02.wav\n"
    code, printed = score(again)
    assert code == 0
    assert "note: 1 of 6 trials are there twice, and count twice" in printed
    assert "note: 1 of 6 trials compare a recording with itself" in printed
    assert "carry names" not in printed
    notes = evaluation_script.trial_notes([("voice08/00.wav", "voice00/1.wav", False)], dict.fromkeys(
        ("voice08/00.wav", "voice00/1.wav")), {"training": ["voice00", "voice01"]})
    assert notes[0].startswith("1 speakers carry names of speakers that the model was trained")
    hyphenated = evaluation_script.trial_notes([("cv-en-1/a.wav", "cv-en-2/b.wav", False)], dict.fromkeys(
        ("cv-en-1/a.wav", "cv-en-2/b.wav")), {"training": ["cv-en-1"]})
    assert hyphenated[0].startswith("1 speakers carry names")
    assert evaluation_script.trial_notes([("a", "b", True), ("b", "a", True)], {"a": "a", "b": "b"}, {})[0].startswith(
        "1 of 2 trials are there twice")
    for pair in ("voice08/00.wav voice08/01.wav", "voice08/01.wav voice08/00.wav"):
        code, printed = score(LIST + f"0 {pair}\n")
        assert code == 2
        assert f"has {' and '.join(pair.split())} as the same person and as another" in printed


def test_a_list_needs_its_audio(fails):
    assert "--trials is x: give --raw_path" in fails(configuration.get_config, "--trials", "x")
    with pytest.raises(InputError, match="it cannot be read"):
        evaluation_script.read_trials("nowhere")
