"""Feature folders: names, descriptions, what is damaged."""
import json
import os
import stat

import numpy as np
import pytest

import common
import configuration
import features
from common import InputError


@pytest.mark.parametrize("name", ["../x", ".hidden", "a/b", "a\\b", "a\nb", "", " a", "a:b", "manifest", "\u0301a"])
def test_a_name_that_could_leave_its_folder_is_refused(name):
    with pytest.raises(InputError, match="speaker name"):
        features.speaker_name(name)


def test_a_name_that_no_file_could_have_is_refused():
    assert features.speaker_name("\u00fc" * 120) == "\u00fc" * 120
    with pytest.raises(InputError, match="its 242 bytes are too many for a file's; use at most 240"):
        features.speaker_name("\u00fc" * 121)


def test_a_name_is_normalised():
    assert features.speaker_name("Ame\u0301lie B. 2") == "Am\u00e9lie B. 2"


@pytest.mark.parametrize("name", ["\u0938\u0941\u0928\u0940\u0924\u093e", "\u0e2a\u0e38\u0e14\u0e32 1",
                                  "\u05d3\u05b8\u05bc\u05d5\u05b4\u05d3"])
def test_vowels_that_are_signs_above_a_letter_make_a_name(name):        # in Hindi, Thai and Hebrew
    assert features.speaker_name(name) == features.normal_form(name)


@pytest.mark.parametrize(("content", "words"), [
    (np.array([{}], dtype=object), "is not a feature file"),
    (np.zeros((3, 180), np.float32), "holds float32 of shape"),
    (np.zeros((3, 80, 180), np.float32), "holds float32 of shape"),
    (np.zeros((3, 40, 180), int), "holds int64 of shape"),
    (np.zeros((0, 40, 180), np.float32), "holds float32 of shape"),
    (np.zeros((2, 40, 180), np.float32), "do not belong together"),
    (np.zeros((4, 40, 180), np.float32), "do not belong together"),
])
def test_a_bad_feature_file_is_named(write_features, content, words):
    folder = write_features([[3]])
    np.save(folder / "s0.npy", content, allow_pickle=True)
    with pytest.raises(InputError, match=words) as error:
        features.load_features(folder)
    assert "s0.npy" in str(error.value)


def test_an_ancestors_folder_counts_rows_as_utterances(tmp_path):
    np.save(tmp_path / "speaker0.npy", np.zeros((3, 40, 180), np.float32), allow_pickle=False)
    speakers, settings = features.load_features(tmp_path)
    assert settings is None
    assert [utterance.count for utterance in speakers[0].utterances] == [1, 1, 1]
    note, = features.check_features(speakers, None, {"tisv_frame": 180}, tmp_path)
    assert "each row counts as an utterance" in note
    with pytest.raises(InputError, match="segments of 180 frames"):
        features.check_features(speakers, None, {"tisv_frame": 200}, tmp_path)


def test_an_empty_folder_names_the_remedy(tmp_path):
    with pytest.raises(InputError, match=r"python data_preprocess\.py --raw_path"):
        features.load_features(tmp_path)


def test_a_sign_that_only_looks_like_letters_stays_itself():
    assert features.speaker_name("\ufb01x") == "\ufb01x"               # the ligature fi


def test_size_and_time_tell_that_a_file_changed(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    os.utime(tmp_path / "a", ns=(0, 5_000_000_007))
    assert common.size_and_time(tmp_path / "a") == [3, 5_000_000_007]
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert common.size_and_time(tmp_path / "link") == [0, 0]


def test_what_is_hidden_is_not_seen(tmp_path):
    for name in ("b", ".hidden", "a", "C"):
        (tmp_path / name).touch()
    assert [path.name for path in features.visible_paths(tmp_path)] == ["C", "a", "b"]


def test_a_session_is_the_whole_sub_folder():
    sessions = [features.Utterance(file, 0, 1).session for file in ("day 1/part 2/0.wav", "day 1/0.wav", "0.wav")]
    assert sessions == ["day 1/part 2", "day 1", ""]


def test_rows_that_two_utterances_claim_are_refused(write_features):
    """The numbers of rows agree, their places do not: the speech of one would be taken for that of the other."""
    folder = write_features([[2, 1]])
    told = json.loads((folder / "s0.json").read_text())
    told["utterances"][1]["first"] = 1
    (folder / "s0.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match=r"1\.wav begins in row 1, not in row 2"):
        features.load_features(folder)


@pytest.mark.parametrize("rows", [2, 4])
def test_rows_that_nothing_describes_are_refused(write_features, rows):
    folder = write_features([[2, 1]])
    np.save(folder / "s0.npy", np.zeros((rows, 40, 180), np.float32), allow_pickle=False)
    with pytest.raises(InputError, match="do not belong together"):
        features.load_features(folder)


def test_speakers_without_speech_are_listed(write_features):
    folder = write_features([[2], [0], [1]])
    (folder / "s1.npy").unlink()
    assert features.speakers_without_speech(folder) == ["s1"]
    assert [speaker.name for speaker in features.load_features(folder)[0]] == ["s0", "s2"]


def test_a_folders_settings_serve_a_model_that_stores_none(write_features):
    folder = write_features([[1]], sr=16000, top_db=40.0)
    config = configuration.get_config([])
    features.adopt_settings(config, {"sr": 8000}, features.read_settings(folder), folder)
    assert (config.sr, config.top_db) == (8000, 40.0)                   # what the model stores is the model's
    features.adopt_settings(config, {}, features.read_settings(folder), folder)
    assert config.sr == 16000
    features.adopt_settings(config, {}, None, folder)
    assert config.sr == 16000


def test_features_of_other_settings_are_refused(write_features):
    folder = write_features([[1]])
    speakers, settings = features.load_features(folder)
    wanted = features.feature_settings(configuration.get_config([]))
    assert wanted.keys() == {"sr", "nfft", "window", "hop", "top_db", "floor_db", "level", "tisv_frame", "tdsv",
                             "tdsv_text"}
    assert features.check_features(speakers, settings, wanted, folder) == []
    for name, value in wanted.items():
        if name.startswith("tdsv"):
            continue
        with pytest.raises(InputError, match=f"was made with --{name} {value}, the model with {2 * value}"):
            features.check_features(speakers, settings, wanted | {name: 2 * value}, folder)
        silent = {other: number for other, number in settings.items() if other != name}
        with pytest.raises(InputError, match=f"was made with --{name} none, the model with {value}"):
            features.check_features(speakers, silent, wanted, folder)


def test_a_feature_file_that_is_gone_is_named(write_features):
    speaker, = features.load_features(write_features([[1]]))[0]
    speaker.path.unlink()
    with pytest.raises(InputError, match=r"s0\.npy is gone"):
        speaker.load()


WRITERS = [
    lambda file, rows: np.save(file, rows, allow_pickle=False),
    lambda file, rows: np.save(file, np.asfortranarray(rows), allow_pickle=False),
    lambda file, rows: np.save(file, rows.astype(float), allow_pickle=False),
    lambda file, rows: np.save(file, rows.astype(">f4"), allow_pickle=False),
    lambda file, rows: np.lib.format.write_array(file, rows, version=(2, 0)),
    lambda file, rows: features.write_rows(file, [rows[:1], rows[1:]])]


@pytest.mark.parametrize("write", WRITERS)
def test_the_head_of_a_feature_file_tells_its_shape(tmp_path, write):
    path = tmp_path / "s0.npy"
    with open(path, "wb") as file:
        write(file, np.ones((3, 40, 180), np.float32))
    assert features.features_shape(path) == features.open_features(path).shape == (3, 40, 180)
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    with pytest.raises(InputError, match=r"s0\.npy is not a feature file"):
        features.features_shape(path)


@pytest.mark.parametrize("write", WRITERS)
def test_rows_that_are_read_are_those_of_the_memory_map(tmp_path, write):
    path, rows = tmp_path / "s0.npy", np.random.default_rng(0).normal(size=(5, 40, 180)).astype(np.float32)
    with open(path, "wb") as file:
        write(file, rows)
    speaker = features.Speaker("s0", path, ())
    np.testing.assert_array_equal(speaker.read([4, 0, 0, np.int64(2)]), rows[[4, 0, 0, 2]])
    with pytest.raises(InputError, match=r"s0\.npy has 5 rows"):
        speaker.read([0, 5])
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"s0\.npy is not a feature file"):
        speaker.read([0])
    path.unlink()
    with pytest.raises(InputError, match=r"s0\.npy is gone"):
        speaker.read([0])


def test_what_cannot_be_described_changes_nothing(tmp_path):
    record = {"speaker": "a", "source": "a.wav", "utterances": []}
    features.write_features(tmp_path, record, [np.zeros((1, 40, 180), np.float32)])
    with pytest.raises(InputError, match=r"^'j.*rgen/a.wav' is not UTF-8; rename it$"):
        features.write_features(tmp_path, record | {"source": "j\udcfcrgen/a.wav"}, [np.ones((2, 40, 180), np.float32)])
    assert features.features_shape(tmp_path / "a.npy") == (1, 40, 180)


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_private_features_are_private(tmp_path):
    features.write_features(tmp_path, {"speaker": "a", "utterances": []}, [np.zeros((1, 40, 180), np.float32)],
                            private=True)
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.npy", "a.json")} == {0o600}
