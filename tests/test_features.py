"""Feature folders: names, descriptions, what is damaged."""
import numpy as np
import pytest

import features
from configuration import InputError


@pytest.mark.parametrize("name", ["../x", ".hidden", "a/b", "a\\b", "a\nb", "", " a", "a:b"])
def test_a_name_that_could_leave_its_folder_is_refused(name):
    with pytest.raises(InputError, match="speaker name"):
        features.speaker_name(name)


def test_a_name_is_normalised():
    assert features.speaker_name("Ame\u0301lie B. 2") == "Am\u00e9lie B. 2"


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


def test_every_setting_must_be_the_models(write_features):
    speakers, settings = features.load_features(write_features([[1]]))
    assert features.check_features(speakers, settings, settings, "folder") == []
    for name, value in settings.items():
        with pytest.raises(InputError, match=f"--{name} is|was made with --{name} {value}, the model with {value + 1}"):
            features.check_features(speakers, settings | {"tisv_frame": 180}, settings | {name: value + 1}, "folder")


def test_speakers_without_speech_have_a_description_and_no_features(write_features):
    folder = write_features([[1], [2], [1]])
    (folder / "s1.npy").unlink()
    assert features.speakers_without_speech(folder) == ["s1"]
