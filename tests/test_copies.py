"""Copies under other conditions: preprocessing makes them, training draws them, validation hears them."""
import dataclasses
import functools
import json
import os
import pathlib
import shutil
import types

import numpy as np
import pytest
import soundfile

import audio
import common
import conditions
import configuration
import data_preprocess
import embedding
import features
import measures
import model
import protocol
import utils
from encoder import load_encoder

COPIES = ("--copies", "2")


@pytest.fixture(scope="module")
def raw(corpus, tmp_path_factory):
    """Three training voices with three recordings each, one test voice, and a folder of noise."""
    folder = tmp_path_factory.mktemp("raw")
    for part, names in (("train", ("voice00", "voice01", "voice02")), ("test", ("voice08",))):
        for name in names:
            (folder / "corpus" / part / name).mkdir(parents=True)
            for take in range(3):
                shutil.copy2(corpus / part / name / f"0{take}.wav", folder / "corpus" / part / name)
    (folder / "noise").mkdir()
    soundfile.write(folder / "noise" / "rain.wav", 0.1 * np.random.default_rng(0).standard_normal(48000), 16000)
    return folder


def preprocess(raw, out, *argv):
    return data_preprocess.main(["--raw_path", str(raw / "corpus"), "--train_path", str(out / "train"), "--test_path",
                                 str(out / "test"), "--noise_raw_path", str(raw / "noise"), "--jobs", "1",
                                 *map(str, argv)])


@pytest.fixture(scope="module")
def copied(raw, tmp_path_factory):
    """Features with two copies of each training utterance."""
    folder = tmp_path_factory.mktemp("copied")
    assert preprocess(raw, folder, *COPIES) == 0
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_each_training_utterance_has_copies_behind_the_originals(raw, copied, tmp_path, capsys):
    assert preprocess(raw, tmp_path) == 0
    plain, _ = features.load_features(tmp_path / "train")
    speakers, settings = features.load_features(copied / "train")
    assert settings["copies"] == 2
    for ours, theirs in zip(speakers, plain, strict=True):
        np.testing.assert_array_equal(ours.load()[:len(theirs.load())], theirs.load())
        assert [len(utterance.copies) for utterance in ours.utterances] == [2, 2, 2]
        assert [(u.file, u.first, u.count) for u in ours.utterances] == [
            (u.file, u.first, u.count) for u in theirs.utterances]
        for utterance in ours.utterances:
            assert {copy.file for copy in utterance.copies} == {utterance.file}
            assert all(copy.condition for copy in utterance.copies)
            assert all(copy.first >= len(theirs.load()) for copy in utterance.copies)
    tested, _ = features.load_features(copied / "test")
    assert not any(utterance.copies for speaker in tested for utterance in speaker.utterances)
    assert contents(copied / "test").keys() == contents(tmp_path / "test").keys()
    preprocess(raw, copied)
    assert "copies" in capsys.readouterr().out


def test_a_copy_goes_the_way_of_every_recording(raw, copied):
    """By hand: the condition on the samples, then detector, level, segments."""
    speakers, _ = features.load_features(copied / "train")
    config = configuration.get_config([])
    folders = tuple(str(path) for path in sorted((raw / "corpus" / "train").iterdir()))
    around = conditions.Surroundings(folders, conditions.find_noises(raw / "noise"))
    for speaker in speakers:
        source = raw / "corpus" / "train" / speaker.name
        for utterance in speaker.utterances:
            wave = audio.load_audio(source / utterance.file, config.sr)
            for slot, copy in zip(("copy 1", "copy 2"), utterance.copies, strict=True):
                seed = int(common.short_digest(f"{speaker.name}/{utterance.file}/{slot}"), 16)
                condition, heard = around.beside(str(source)).under(slot, wave, config.sr, np.random.default_rng(seed))
                assert copy.condition == condition
                cuts, known = audio.speech_segments(heard, config)
                np.testing.assert_array_equal(speaker.load()[copy.first:copy.first + copy.count], cuts)
                assert (copy.speech_seconds, copy.snr) == (known["speech_seconds"], known["snr"])


def test_nobody_babbles_behind_himself_whatever_the_path(raw, tmp_path, monkeypatch):
    """Neither with `..` in --raw_path, nor where recordings are enrolled one by one, as for a list of trials."""
    seen = []
    monkeypatch.setattr(common, "run_on_cores", lambda function, arguments, *_, **__: seen.extend(arguments) or [])
    monkeypatch.chdir(tmp_path)
    crooked = os.path.relpath(raw / "corpus" / "train")
    assert crooked.startswith("..")
    config = configuration.get_config(["--raw_path", crooked])
    data_preprocess.cached_features(config, under_conditions=True)
    data_preprocess.cached_recordings(config, [*pathlib.Path(crooked).rglob("*.wav")])
    assert len(seen) == 3 + 9
    for _, source, _, _, copies in seen:
        speaker = (source if source.is_dir() else source.parent).resolve()
        voices = {pathlib.Path(voice).resolve() for voice in copies.around.voices}
        assert voices == {path.resolve() for path in (raw / "corpus" / "train").iterdir()} - {speaker}


def test_a_damaged_recording_does_not_babble(raw, tmp_path):
    """Others of its speaker do; where all are damaged, others alone."""
    shutil.copytree(raw / "corpus" / "train", tmp_path / "voices")
    folders = sorted(map(str, (tmp_path / "voices").iterdir()))
    for path in sorted(pathlib.Path(folders[1]).iterdir()):
        path.write_bytes(b"RIFF")
    first = sorted(pathlib.Path(folders[2]).iterdir())[0]
    first.write_bytes(b"RIFF")
    wave = audio.load_audio(sorted(pathlib.Path(folders[0]).iterdir())[0], 8000)
    for seed in range(5):
        heard = conditions.babble(wave, 8000, np.random.default_rng(seed), voices=(folders[2],), snr=5)
        assert audio.level_db(heard - wave) > -60
    assert (conditions.babble(wave, 8000, np.random.default_rng(0), voices=(folders[1],), snr=5) == wave).all()


@pytest.mark.parametrize("suffix", [".au", ".wave", ".caf", ".w64", ".aifc", ".wav"])
def test_noise_of_every_suffix_is_mixed_in(raw, tmp_path, suffix):
    path, wave = tmp_path / f"rain{suffix}", audio.load_audio(
        raw / "corpus" / "train" / "voice00" / "00.wav", 8000)
    kind = {".wave": "WAV", ".aifc": "AIFF"}.get(suffix, suffix[1:].upper())
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(48000), 16000, format=kind)
    heard = conditions.recorded_noise(wave, 8000, np.random.default_rng(0), files=(str(path),), snr=10)
    assert audio.level_db(heard - wave) > -60


def test_more_copies_are_added_and_none_is_made_again(raw, copied, tmp_path, fails):
    shutil.copytree(copied, tmp_path / "out")
    before = {speaker.name: np.array(speaker.load()) for speaker in features.load_features(copied / "train")[0]}
    assert preprocess(raw, tmp_path / "out") == 0                               # what the folder has binds
    assert contents(tmp_path / "out" / "train") == contents(copied / "train")
    assert preprocess(raw, tmp_path / "out", "--copies", 3) == 0
    for speaker in features.load_features(tmp_path / "out" / "train")[0]:
        np.testing.assert_array_equal(speaker.load()[:len(before[speaker.name])], before[speaker.name])
        assert [len(utterance.copies) for utterance in speaker.utterances] == [3, 3, 3]
    whole = tmp_path / "whole"
    assert preprocess(raw, whole, "--copies", 3) == 0
    ours, theirs = (features.load_features(folder / "train")[0] for folder in (tmp_path / "out", whole))
    for one, other in zip(ours, theirs, strict=True):
        assert [[copy.condition for copy in utterance.copies] for utterance in one.utterances] == [
            [copy.condition for copy in utterance.copies] for utterance in other.utterances]
    assert "--copies is 1, but" in fails(
        data_preprocess.main, "--raw_path", raw / "corpus", "--train_path", whole / "train", "--test_path",
        whole / "test", "--copies", 1)


def test_a_killed_run_goes_on_and_cores_do_not_matter(raw, copied, tmp_path):
    """A speaker is written whole or not at all: two are missing, as after a kill; two processes make the same bytes."""
    shutil.copytree(copied, tmp_path / "out")
    for name in ("voice00.npy", "voice01.json"):
        (tmp_path / "out" / "train" / name).unlink()
    stamp = (tmp_path / "out" / "train" / "voice02.npy").stat().st_mtime_ns
    assert preprocess(raw, tmp_path / "out", "--jobs", 2) == 0
    assert contents(tmp_path / "out" / "train") == contents(copied / "train")
    assert (tmp_path / "out" / "train" / "voice02.npy").stat().st_mtime_ns == stamp


def test_a_changed_recording_has_new_copies(raw, copied, tmp_path):
    shutil.copytree(copied, tmp_path / "out")
    shutil.copytree(raw, tmp_path / "raw")
    shutil.copy2(raw / "corpus" / "train" / "voice01" / "01.wav", tmp_path / "raw/corpus/train/voice00/01.wav")
    assert preprocess(tmp_path / "raw", tmp_path / "out", "--noise_raw_path", raw / "noise") == 0
    old, new = (features.load_features(folder / "train")[0][0] for folder in (copied, tmp_path / "out"))
    assert [len(utterance.copies) for utterance in new.utterances] == [2, 2, 2]
    assert old.utterances[1].copies[0].condition == new.utterances[1].copies[0].condition
    assert old.load().shape != new.load().shape or not np.array_equal(old.load(), new.load())


def test_what_does_not_fit_is_refused(raw, copied, tmp_path, fails):
    flags = ["--raw_path", raw / "corpus", "--train_path", tmp_path / "a", "--test_path", tmp_path / "b", "--copies", 1]
    assert "--noise_raw_path is nowhere: there is no such folder" in fails(
        data_preprocess.main, *flags, "--noise_raw_path", "nowhere")
    assert "--noise_raw_path is elsewhere, but" in fails(
        data_preprocess.main, "--raw_path", raw / "corpus", "--train_path", copied / "train", "--test_path",
        copied / "test", "--noise_raw_path", "elsewhere")


def test_a_folder_of_noise_may_be_spelled_in_several_ways(raw, copied, tmp_path, monkeypatch, fails):
    shutil.copytree(copied, tmp_path / "out")
    manifest = tmp_path / "out" / "train" / "manifest.json"
    stored, before = json.loads(manifest.read_text()), contents(tmp_path / "out" / "train")
    assert stored["settings"]["noise_raw_path"] == str((raw / "noise").resolve())
    monkeypatch.chdir(raw)
    for name in ("noise", "./noise", "corpus/../noise/"):
        assert preprocess(raw, tmp_path / "out", "--noise_raw_path", name) == 0
    stored["settings"]["noise_raw_path"] = "./noise"                            # as older versions stored it
    for typed in ([], ["--noise_raw_path", "noise"]):
        common.write_json(manifest, stored)
        assert data_preprocess.main(["--raw_path", "corpus", "--train_path", str(tmp_path / "out" / "train"),
                                     "--test_path", str(tmp_path / "out" / "test"), "--jobs", "1", *typed]) == 0
        assert contents(tmp_path / "out" / "train") == before
    assert "--noise_raw_path is corpus, but" in fails(
        data_preprocess.main, "--raw_path", "corpus", "--train_path", tmp_path / "out" / "train", "--test_path",
        tmp_path / "out" / "test", "--noise_raw_path", "corpus")


# ---- training ---------------------------------------------------------------------------------------------------

def spoken(n_copies):
    """Two utterances of two rows each, rows 0 to 3; copy k of utterance u has rows 10 k + 4 u + 10 onwards."""
    return [features.Utterance(str(u), 2 * u, 2, copies=tuple(
        features.Utterance(str(u), 10 * k + 4 * u + 10, 2 if k else 0) for k in range(n_copies))) for u in range(2)]


@pytest.mark.parametrize("share", [0.0, 0.25, 0.6, 1.0])
def test_copies_are_drawn_as_often_as_asked(share):
    """The first copy has no rows, so that only the second can be drawn."""
    rows = np.array([utils.draw_rows(spoken(2), 2, np.random.default_rng(seed), share) for seed in range(800)])
    assert set(rows[rows >= 10].tolist()) <= {20, 21, 24, 25}
    assert np.mean(rows >= 10) == pytest.approx(share, abs=0.03)
    own = np.where(rows >= 10, (rows - 20) // 4, rows // 2)
    assert (np.sort(own, axis=1) == [0, 1]).all()                               # a copy stands for its utterance


def test_without_copies_the_batches_are_what_they_were():
    for seed in range(20):
        drawn = [utils.draw_rows(spoken(0), 3, np.random.default_rng(seed), share) for share in (0.0, 0.9)]
        assert drawn[0] == drawn[1]


def test_a_batch_is_of_one_corpus():
    def speaker(name, corpus, n=2):
        return features.Speaker(name, None, tuple(features.Utterance(str(u), u, 1) for u in range(n)), corpus)

    speakers = [speaker(f"a{i}", "a", 8) for i in range(6)] + [speaker(f"b{i}", "b", 1) for i in range(6)] + [
        speaker("c", "c"), speaker("d0", "d"), speaker("d1", "d")]
    pools, counts = utils.speaker_pools(speakers, 3, 4, weigh=True, one_corpus=True), {}
    for seed in range(400):
        places = utils.draw_speakers(pools, 3, np.random.default_rng(seed))
        drawn = [speakers[place] for place in places]
        assert len({one.name for one in drawn}) == 3
        kind = tuple(sorted({one.corpus for one in drawn}))
        assert kind in {("a",), ("b",), ("c", "d")}                             # the small ones count as one
        counts[kind] = counts.get(kind, 0) + 1
    assert counts["a",] / 400 == pytest.approx(48 / 60, abs=0.06)               # utterances
    assert counts["b",] / 400 == pytest.approx(6 / 60, abs=0.05)
    assert model.pool_notes(pools, speakers) == []
    pools = utils.speaker_pools(speakers, 4, 4, one_corpus=True)
    assert model.pool_notes(pools, speakers)[0].startswith("3 of 15 speakers do not train: ")


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory):
    """A model trained on all synthetic training voices with two copies, whose calibration knows conditions."""
    folder = tmp_path_factory.mktemp("run")
    assert data_preprocess.main(["--raw_path", str(corpus), "--train_path", str(folder / "train"), "--test_path",
                                 str(folder / "test"), *COPIES, "--jobs", "1"]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "CALIBRATION_SPEAKERS", 2)
        assert model.main(["--train", "--train_path", str(folder / "train"), "--model_path", str(folder / "model"),
                           "--speaker_number", "3", "--utterance_number", "3", "--hidden", "16", "--proj", "8",
                           "--num_layer", "2", "--valid_ratio", "0.5", "--valid_every", "10", "--optim", "adam",
                           "--lr", "0.01", "--iteration", "20"]) == 0
    return folder


def test_validation_hears_originals_and_copies(run):
    """By hand: the mean of the losses on originals and copies, over all draws of enrolments; the least is the best."""
    stored = json.loads((run / "model" / "thresholds.json").read_text())
    encoder, _ = load_encoder(run / "model", stored["best"]["model_num"])
    names = json.loads((run / "model" / "config.json").read_text())["validation"]
    speakers = [one for one in features.load_features(run / "train")[0] if one.name in names]
    embed, scales, least = functools.partial(embedding.embed_speaker, encoder), np.linspace(1, 200, 2000), []
    for redrawn in utils.redraw_enrolments(speakers, model.DRAWS):
        drawn = protocol.evaluate(embed, redrawn, 3)
        assert len(drawn.copies) == 2                   # each loss at the scale that suits it best
        least.append([min(one.loss(w) for w in scales) for one in (drawn, *map(drawn.under, drawn.copies))])
    expected = (np.mean([losses[0] for losses in least]) + np.mean([losses[1:] for losses in least])) / 2
    assert stored["best"]["valid_loss"] == pytest.approx(expected, rel=1e-3)
    evaluation = protocol.evaluate(embed, speakers, 3)
    copies = [evaluation.under(probes) for probes in evaluation.copies]
    rows = utils.History(run / "model" / "history.csv", 20).rows
    assert len(rows) == 2
    assert stored["best"]["valid_loss"] == min(float(row["valid_loss"]) for row in rows)
    row = next(row for row in rows if int(row["iteration"]) == stored["best"]["model_num"])
    assert float(row["valid_copies_eer"]) == pytest.approx(np.mean([copy.eer for copy in copies]))
    assert float(row["valid_eer"]) == pytest.approx(evaluation.eer)


def test_a_run_for_one_threshold_validates_by_it(run):
    """With --loss trials the best checkpoint is that of the least min Cllr; here scikit-learn finds it."""
    from sklearn.isotonic import IsotonicRegression

    encoder, config = load_encoder(run / "model")
    config.loss, config.utterance_number = "trials", 3
    names = json.loads((run / "model" / "config.json").read_text())["validation"]
    speakers = [one for one in features.load_features(run / "train")[0] if one.name in names]
    trainer = types.SimpleNamespace(config=config, encoder=encoder, validation=speakers, chief=True,
                                    check_loss=lambda loss, name: None)
    found, embed = [], functools.partial(embedding.embed_speaker, encoder)
    for redrawn in utils.redraw_enrolments(speakers, model.DRAWS):
        drawn = protocol.evaluate(embed, redrawn, 3)
        found.append([])
        for one in (drawn, *map(drawn.under, drawn.copies)):
            kept = np.isfinite(one.scores)
            ranks, labels = np.unique(one.scores[kept], return_inverse=True)[1], one.labels[kept]
            weights = np.where(labels, 1 / labels.sum(), 1 / (~labels).sum())
            posterior = IsotonicRegression().fit(ranks, labels, weights).predict(ranks)
            with np.errstate(divide="ignore"):
                costs = np.where(labels, -np.log2(posterior), -np.log2(1 - posterior))
            found[-1].append((costs * weights).sum() / 2)
    expected = (np.mean([costs[0] for costs in found]) + np.mean([costs[1:] for costs in found])) / 2
    assert 0 < expected < 1
    assert model.Trainer.validate(trainer).loss == pytest.approx(expected)


def test_the_eer_of_copies_leaves_out_who_has_none(run):
    names = json.loads((run / "model" / "config.json").read_text())["validation"]
    speakers = [one for one in features.load_features(run / "train")[0] if one.name in names]
    encoder, _ = load_encoder(run / "model")
    embed = functools.partial(embedding.embed_speaker, encoder)
    bare = dataclasses.replace(speakers[0], utterances=tuple(one._replace(copies=()) for one in speakers[0].utterances))
    evaluation = protocol.evaluate(embed, [bare, *speakers[1:]], 3)
    for under in map(evaluation.under, evaluation.copies):
        there = np.isfinite(under.scores).all(axis=1)
        assert not there.all()
        assert under.eer_of_copies() == pytest.approx(measures.equal_error_rate(
            under.scores[there].ravel(), under.labels[there].ravel())[0])


def test_a_probe_without_speech_is_silent_under_every_condition():
    """One has a copy, one lacks it, one holds no speech: that is a trial, the one that lacks its copy is none."""
    copy = features.Utterance("a", 1, 1, condition="hum 10 dB")
    pairs = [("x", features.Utterance("a", 0, 1, copies=(copy,))), ("x", features.Utterance("b", 2, 1)),
             ("x", features.Utterance("c", 3, 0, dropped="is silent"))]
    (probes,) = protocol.copies_of(pairs, {("x", copy): np.ones(2)}, np.full(2, np.nan))
    assert probes.condition == "hum 10 dB"
    assert probes.utterances == [copy, None, pairs[2][1]]
    np.testing.assert_array_equal(np.isnan(probes.vectors).all(axis=1), [False, True, True])


def test_a_run_with_copies_stores_a_calibration_that_knows_conditions(run):
    stored = json.loads((run / "model" / "thresholds.json").read_text())
    assert {len(part) for part in stored["calibration"].values()} == {1 + len(measures.TERMS)}
    calibration = embedding.calibration_of(stored)
    for point in stored["points"].values():
        assert calibration.ratio(point["threshold"], {}) == pytest.approx(point["llr"])


def test_few_validation_speakers_have_one_threshold_for_all(run, tmp_path, capsys):
    flags = ["--train", "--train_path", str(run / "train"), "--model_path", str(tmp_path / "model"), "--iteration", "2",
             "--speaker_number", "3", "--utterance_number", "3", "--hidden", "16", "--proj", "8", "--num_layer", "2",
             "--valid_ratio", "0.5"]
    assert model.main(flags) == 0
    assert "4 validation speakers are too few for thresholds that know conditions, 10" in capsys.readouterr().out
    stored = json.loads((tmp_path / "model" / "thresholds.json").read_text())
    assert isinstance(stored["calibration"]["scale"], float)
    assert not any("llr" in point for point in stored["points"].values())


def test_the_copies_own_rows_are_embedded(run):
    """The probes under a condition have the d-vectors of the copies' rows."""
    encoder, _ = embedding.load_encoder(run / "model")
    speakers = features.load_features(run / "train")[0][:2]
    evaluation = protocol.evaluate(functools.partial(embedding.embed_speaker, encoder), speakers, 3)
    by_name = {speaker.name: speaker for speaker in speakers}
    for number, probes in enumerate(evaluation.copies):
        assert probes.condition == f"copy {number + 1}"
        for (owner, _), copy, vector in zip(evaluation.probes, probes.utterances, probes.vectors, strict=True):
            rows = by_name[owner].load()[copy.first:copy.first + copy.count]
            np.testing.assert_allclose(vector, embedding.embed(encoder, rows), atol=1e-6)
    under = evaluation.under(evaluation.copies[0], 1)
    np.testing.assert_allclose(under.scores, evaluation.copies[0].vectors @ evaluation.enrolment_vectors[:, 0].T,
                               atol=1e-6)


def test_only_speakers_of_one_corpus_are_compared():
    """By hand: two corpora of two speakers, one probe each; the loss is the mean of the corpora's."""
    scores = np.array([[0.9, 0.2, 0.99, 0.99], [0.1, 0.7, 0.99, 0.99], [0.99, 0.99, 0.5, 0.4], [0.99, 0.99, 0.3, 0.6]])
    evaluation = protocol.Evaluation(list("abcd"), [(name, "1") for name in "abcd"], scores, np.eye(4, dtype=bool), 1,
                                     1.0, 1.0, corpora=np.array([0, 0, 1, 1]))
    assert evaluation.compared.sum() == 8
    assert evaluation.eer == 0                          # no score of another within a corpus reaches 0.5
    own, other = np.array([0.9, 0.7, 0.5, 0.6]), np.array([0.2, 0.1, 0.4, 0.3])
    costs = np.log1p(np.exp(10 * (other - own)))
    assert evaluation.loss(10.0) == pytest.approx((costs[:2].mean() + costs[2:].mean()) / 2)
    assert len(evaluation.scored().scores) == 8


def test_an_older_model_begins_a_run_on_younger_features(made_features, tmp_path, capsys):
    """Its features had no level; the run takes the folder's, and normalises anew."""
    flags = ["--train", "--speaker_number", "3", "--utterance_number", "3", "--hidden", "16", "--proj", "8",
             "--num_layer", "2", "--valid_ratio", "0", "--iteration", "2"]
    assert model.main([*flags, "--train_path", str(made_features / "train"), "--model_path", str(tmp_path / "a")]) == 0
    stored = json.loads((tmp_path / "a" / "config.json").read_text())
    del stored["flags"]["level"], stored["flags"]["floor_db"]
    (tmp_path / "a" / "config.json").write_text(json.dumps(stored))
    assert embedding.load_encoder(tmp_path / "a")[1].level is None
    assert model.main([*flags, "--train_path", str(made_features / "train"), "--model_path", str(tmp_path / "b"),
                       "--init_from", str(tmp_path / "a")]) == 0
    begun = json.loads((tmp_path / "b" / "config.json").read_text())
    assert (begun["flags"]["level"], begun["flags"]["floor_db"]) == (-26.0, 3.0)
    encoder, _ = load_encoder(tmp_path / "b")
    mean, _ = utils.channel_statistics(features.load_features(made_features / "train")[0], np.random.default_rng(0))
    np.testing.assert_allclose(encoder.mean.numpy(), mean, rtol=1e-5)
