"""The report of an evaluation: conditions, normalisation, the speakers that err most, the page, the embeddings."""
import argparse
import collections
import contextlib
import functools
import html.parser
import io
import json
import pathlib
import shutil
import subprocess
import sys
import weakref
from dataclasses import replace

import numpy as np
import pytest
import soundfile

import audio
import common
import conditions
import configuration
import embedding
import features
import measures
import protocol
import report as report_room
import test as evaluation_script


@pytest.fixture(scope="module")
def tested(trained, made_features):
    """The findings of the test on the small corpus, with 3 enrolment utterances, and the flags."""
    flags = ["--model_path", str(trained), "--test_path", str(made_features / "test"), "--M", "3"]
    config = configuration.get_config(flags)
    return evaluation_script.score_speakers(config), config


@pytest.fixture(scope="module")
def report(trained, made_features, tmp_path_factory):
    """The report of the command with normalisation and embeddings."""
    folder = tmp_path_factory.mktemp("report")
    assert evaluation_script.main([
        "--model_path", str(trained), "--test_path", str(made_features / "test"), "--M", "3",
        "--report_path", str(folder), "--snorm", str(made_features / "train"),
        "--save_embeddings", str(folder / "embeddings.npz")]) == 0
    return folder


# ---- conditions -------------------------------------------------------------------------------------------------


def test_a_shortened_probe_is_the_beginning_of_its_speech(tested, corpus, monkeypatch):
    """By hand from the audio: the first second of voiced speech, its log-mel cut anew."""
    findings, config = tested
    encoder, stored = embedding.open_model(config)
    speakers, _ = protocol.speakers_to_test(config, stored)
    by_name = {speaker.name: speaker for speaker in speakers}
    owners = [by_name[owner] for owner, _ in findings.evaluation.probes]

    def shortened(seconds):
        embed_rows = functools.partial(embedding.embed_rows, encoder)
        return protocol.shorten(embed_rows, owners, findings.evaluation.originals, seconds, config)

    maps, load = [], features.Speaker.load
    monkeypatch.setattr(features.Speaker, "load", lambda own: maps.append(weakref.ref(rows := load(own))) or rows)
    vectors = shortened(1).vectors
    assert not any(rows() is not None for rows in maps), "each keeps a file open"
    assert len(vectors) == len(maps) == 9
    for (name, file), vector in zip(findings.evaluation.probes, vectors, strict=True):
        wave = audio.load_audio(corpus / "test" / name / file, config.sr)
        speech = audio.voiced(wave - wave.mean(), **audio.detector(config))
        speech = speech * 10 ** ((-26 - 10 * np.log10(np.mean(speech ** 2))) / 20)
        frames = audio.log_mel(speech, sr=config.sr, nfft=config.nfft, window=config.window, hop=config.hop)
        expected = embedding.embed(encoder, audio.cut_segments(frames[:100], 180))
        np.testing.assert_allclose(vector, expected, atol=1e-5)
    assert np.isnan(shortened(60).vectors).all()
    assert shortened(60).utterances == [None] * 9


def test_conditions_are_the_eer_of_their_trials(tested):
    findings, config = tested
    figures = [evaluation_script.condition_figures(*row, config, findings.stored) for row in findings.conditions]
    rows = {row["condition"]: row for row in figures}
    assert rows.keys() == {"as recorded", "first 1 s of speech", "first 2 s of speech", "first 5 s of speech",
                           "1 enrolment utterance"}
    assert (rows["first 5 s of speech"]["probes"], rows["first 5 s of speech"]["eer"]) == (0, None)
    assert (rows["as recorded"]["probes"], rows["as recorded"]["eer"]["value"]) == (9, findings.evaluation.eer)
    first = [own[0] for own in findings.evaluation.enrolment_vectors]
    scores = [[float(probe @ one) for one in first] for probe in findings.evaluation.probe_vectors]
    single = rows["1 enrolment utterance"]["eer"]
    assert single["value"] == measures.equal_error_rate(scores, findings.evaluation.labels)[0]
    assert single["low"] is None                          # intervals cost time: --conditions
    ratios = embedding.calibration_of(findings.stored).ratio(findings.scored.scores, findings.scored.known)
    expected = measures.equal_error_rate(ratios, findings.scored.labels)[0]
    assert rows["as recorded"]["eer_llr"]["value"] == expected


def test_the_worst_speakers_come_first():
    """Three speakers with two probes each, threshold 0.5: b errs most, and most with c."""
    scores = np.array([[0.9, 0.1, 0.1], [0.8, 0.2, 0.1], [0.1, 0.4, 0.7], [0.1, 0.9, 0.6], [0.1, 0.3, 0.9],
                       [0.2, 0.1, -np.inf]])
    labels = np.repeat(np.eye(3, dtype=bool), 2, axis=0)
    probes = [(name, str(number)) for name in "abc" for number in range(2)]
    scored = protocol.Evaluation(list("abc"), probes, scores, labels, 1, 1.0, 1.0).scored()
    rows = evaluation_script.worst_speakers(scored, list("abc"), 0.5)
    assert [row[0] for row in rows] == ["b", "c", "a"]
    assert rows[0] == ("b", 0.5, 2 / 8, "c")                                    # 2 of the 8 trials with others accepted
    assert rows[1] == ("c", 0.5, 2 / 8, "b")
    assert rows[2][1:3] == (0.0, 0.0)


def test_the_cohort_is_a_vector_of_each_speaker(tested, made_features, write_features):
    findings, config = tested
    names, vectors, notes = evaluation_script.embed_cohort(findings.encoder, made_features / "train", config)
    assert names == [f"voice0{i}" for i in range(8)]
    assert notes == []
    speaker = features.load_features(made_features / "train")[0][3]
    rows = [embedding.embed(findings.encoder, speaker.load()[utterance.first:utterance.first + utterance.count])
            for utterance in speaker.utterances]
    np.testing.assert_allclose(vectors[3], np.mean(rows, axis=0) / np.linalg.norm(np.mean(rows, axis=0)), atol=1e-5)
    copied = write_features([[1, 1], [1]], "copied")                     # whose second row is a copy of the first
    told = json.loads((copied / "s0.json").read_text())
    told["utterances"][0]["copies"] = [told["utterances"].pop()]
    (copied / "s0.json").write_text(json.dumps(told))
    _, vectors, _ = evaluation_script.embed_cohort(findings.encoder, copied, config)
    first = features.load_features(copied)[0][0].load()[:1]
    np.testing.assert_allclose(vectors[0], embedding.embed(findings.encoder, first), atol=1e-5)
    bare = write_features([[1], [1]])
    (bare / "manifest.json").unlink()
    notes = evaluation_script.embed_cohort(findings.encoder, bare, config)[2]
    assert "does not say how its features were made" in notes[0]


@pytest.mark.parametrize(("flag", "value"), [("--train", "True"), ("--verify", "True"), ("--export", "folder")])
def test_what_model_py_does_is_not_done_here(fails, flag, value):
    line = fails(evaluation_script.main, flag, value)
    assert f"{flag} is {value}: test.py only tests; python model.py {flag} {value} does that" in line


# ---- what is written --------------------------------------------------------------------------------------------

def test_what_is_infinite_is_not_measurable():
    figures = report_room.without_infinities({"cllr": {"value": np.inf, "low": 0.5, "high": None}})
    assert figures == {"cllr": {"value": None, "low": 0.5, "high": None}}
    assert [report_room.figure_text(value) for value in (None, 0.5)] == ["not measurable", "0.5000"]


def test_notes_and_names_are_text_on_the_page(report):
    figures = json.loads((report / "evaluation.json").read_text()) | {"notes": ["a <b> & c"], "model": "<i>x"}
    page = report_room.web_page(figures, [])
    assert "Note: a &lt;b&gt; &amp; c" in page
    assert "model &lt;i&gt;x, checkpoint" in page
    assert "<b>" not in page
    assert "<i>" not in page


def test_a_model_without_calibration_is_said(report):
    figures = json.loads((report / "evaluation.json").read_text())
    assert "not calibrated" not in report_room.text_table(*report_room.tables(figures)[0])
    bare = {name: entry for name, entry in figures["measures"].items() if name not in ("cllr", "min_cllr", "eer_llr")}
    assert "not calibrated" in report_room.text_table(*report_room.tables(figures | {"measures": bare})[0])


def test_pictures_of_an_earlier_report_go(tested, tmp_path):
    findings, config = tested
    figures = evaluation_script.gather_figures(findings, config)
    history = [{"iteration": "1", "loss": "2.0", "valid_eer": ""}]
    report_room.write_report(tmp_path, figures, findings.scored, findings.evaluation, history)
    assert {path.stem for path in tmp_path.glob("*.png")} == {"det", "scores", "map", "similarity", "training"}
    report_room.write_report(tmp_path, figures, findings.scored)
    assert {path.stem for path in tmp_path.glob("*.png")} == {"det", "scores", "map"}


def test_the_curve_has_no_point_at_infinity():
    """Its axes are normal deviates: rates of 0 and 1 lie nowhere. Left of 7 thresholds are those with both rates."""
    scores, labels = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), np.array([0, 0, 1, 0, 1, 1], bool)
    curve = report_room.det_curve(scores, labels).axes[0].lines[0]
    assert np.isfinite(curve.get_xydata()).all()
    assert len(curve.get_xydata()) == 1                        # at 0.4: one of three others passes, one target fails


def test_the_curve_tells_its_equal_error_rate():
    """At 0.4 one of three others passes and one of two targets fails: (1/3 + 1/2) / 2."""
    figure = report_room.det_curve(np.array([0.1, 0.2, 0.3, 0.4, 0.5]), np.array([0, 0, 1, 0, 1], bool))
    assert "EER 41.7% at threshold 0.400" in [line.get_label() for line in figure.axes[0].lines]


def test_more_enrolment_utterances_are_their_mean():
    """The first utterances of a and b are the other's voice, the two further ones their own."""
    a, b = np.eye(2)
    enrolled, probes = np.array([[b, a, a], [a, b, b]]), np.array([a, b])
    evaluation = protocol.Evaluation(["a", "b"], [("a", "1"), ("b", "1")], np.eye(2), np.eye(2, dtype=bool), 3, 1.0, 1,
                                     [], enrolled, probes)
    assert evaluation.under(evaluation.originals, 1).eer == 1.0
    assert evaluation.under(evaluation.originals, 3).eer == 0.0


def test_a_cohort_of_the_test_speakers_is_noted(tested, made_features):
    findings, config = tested
    flags = argparse.Namespace(**vars(config) | {"snorm": str(made_features / "test")})
    evaluation_script.gather_figures(findings, flags)
    assert findings.notes.pop().startswith("3 speakers of --snorm")


def test_the_heat_map_shows_each_speakers_own_mean():
    scores = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [-np.inf, -np.inf]])
    labels = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], bool)
    probes = [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")]
    evaluation = protocol.Evaluation(["a", "b"], probes, scores, labels, 1, 1.0, 1.0)
    image = report_room.heat_map(evaluation).axes[0].images[0].get_array()
    np.testing.assert_allclose(image, [[0.8, 0.2], [0.2, 0.8]])                     # silence is left out


def test_the_report_agrees_with_the_scores(report):
    figures = json.loads((report / "evaluation.json").read_text())
    lines = [line.split("\t") for line in (report / "scores.txt").read_text().splitlines()]
    scores, labels = [float(line[0]) for line in lines], [line[1] == "target" for line in lines]
    assert figures["eer"] == pytest.approx(measures.equal_error_rate(scores, labels)[0])
    assert figures["measures"]["cllr"]["value"] > 0                             # the model stores a calibration
    entry = figures["measures"]["auc"]
    assert entry["low"] <= entry["value"] <= entry["high"]
    assert figures["snorm"]["speakers"] == 8
    assert len(figures["worst_speakers"]) == 3
    assert {len(figures[name]) for name in ("model_sha256", "data_sha256")} == {64}


def test_names_with_blanks_stay_one_field(tmp_path, report):
    figures = json.loads((report / "evaluation.json").read_text())
    places = np.array([0, 1])
    scored = measures.Scored(["anna maria"] * 2, ["anna maria/1 a.wav", "bo/\t2.wav"], np.array([0.5, 0.25]),
                             np.array([True, False]), np.array([0, 0]), places,
                             {"anna maria": np.eye(2)[0], "anna maria/1 a.wav": np.eye(2)[0],
                              "bo/\t2.wav": np.eye(2)[1]})
    report_room.write_report(tmp_path, figures, scored)
    assert (tmp_path / "scores.txt").read_text() == ("0.500000\ttarget\tanna maria\tanna maria/1 a.wav\n"
                                                     "0.250000\tnontarget\tanna maria\tbo/ 2.wav\n")


def test_the_page_is_whole_and_needs_no_other_file(report):
    page = (report / "report.html").read_text(encoding="utf-8")
    found = []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.append((tag, dict(attrs)))

    Reader().feed(page)
    pictures = [attributes["src"] for tag, attributes in found if tag == "img"]
    assert len(pictures) == 5
    assert all(picture.startswith("data:image/png;base64,") for picture in pictures)
    assert not [attributes for _, attributes in found if "href" in attributes]
    figures = json.loads((report / "evaluation.json").read_text())
    assert f"EER {figures['eer']:.2%}" in page
    assert "not trustworthy: fewer than 30 target trials" in page


def test_the_embeddings_are_those_that_were_scored(report, tested):
    stored = np.load(report / "embeddings.npz", allow_pickle=False)
    vectors = tested[0].scored.vectors
    assert stored["names"].tolist() == sorted(vectors)
    np.testing.assert_allclose(stored["vectors"], [vectors[name] for name in sorted(vectors)], atol=1e-6)
    assert stored["seconds"].shape == (12,)
    assert (stored["seconds"] > 0.5).all()


def test_two_evaluations_draw_the_same_intervals(tested):
    findings, config = tested
    first, second = (evaluation_script.gather_figures(findings, config)["measures"] for _ in range(2))
    assert first == second


# ---- --conditions True ------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def stressed(trained, corpus, tmp_path_factory):
    """A run with --conditions True in a folder of its own: that folder, the flags, what was printed."""
    folder, rng = tmp_path_factory.mktemp("stressed"), np.random.default_rng(0)
    (folder / "noise").mkdir()
    soundfile.write(folder / "noise" / "rain.wav", 0.1 * rng.standard_normal(48000), 16000)
    flags = ["--model_path", str(trained), "--raw_path", str(corpus / "test"), "--M", "3", "--conditions", "True",
             "--noise_raw_path", str(folder / "noise"), "--report_path", str(folder / "report"), "--jobs", "1"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.chdir(folder)
        assert evaluation_script.main(flags) == 0
    return folder, flags, printed.getvalue()


def test_every_condition_has_its_row(stressed):
    folder, _, printed = stressed
    figures = json.loads((folder / "report" / "evaluation.json").read_text())
    around = conditions.Surroundings(("a",), ("b",))
    names = [row["condition"] for row in figures["conditions"]]
    assert names == ["as recorded", *around.conditions, "first 1 s of speech", "first 2 s of speech",
                     "first 5 s of speech", "1 enrolment utterance"]
    for row in figures["conditions"]:
        line = next(line for line in printed.splitlines() if line.startswith(f"{row['condition']}  "))
        if row["eer"]:
            assert report_room.interval_text(row["eer"]) in line
            assert line.endswith("not trustworthy: fewer than 30 target trials")
            low, high = row["far"]["low"], row["far"]["high"]
            assert 0 <= row["far"]["value"] <= 1 if low is None else 0 <= low <= row["far"]["value"] <= high <= 1
    assert (folder / "report" / "conditions.png").stat().st_size > 10000
    assert 'alt="conditions"' in (folder / "report" / "report.html").read_text()


def test_a_row_is_what_its_probes_give(stressed, trained, corpus):
    """By hand: telephone and a room, from the samples to the rates at the stored threshold."""
    folder, _, _ = stressed
    figures = json.loads((folder / "report" / "evaluation.json").read_text())
    rows = {row["condition"]: row for row in figures["conditions"]}
    encoder, config = embedding.load_encoder(trained)
    threshold = embedding.read_thresholds(trained)["points"]["eer"]["threshold"]
    names = sorted(path.name for path in (corpus / "test").iterdir())
    for name in ("telephone", "room 0.4 s"):
        scores, labels = [], []
        for owner in names:
            for take in range(3, 6):
                wave = audio.load_audio(corpus / "test" / owner / f"0{take}.wav", config.sr)
                seed = int(common.short_digest(f"{owner}/0{take}.wav/{name}"), 16)
                heard = conditions.CONDITIONS[name](wave, config.sr, np.random.default_rng(seed))
                probe = embedding.embed(encoder, audio.segments(heard, config))
                for other in names:
                    vectors = [embedding.embed(encoder, audio.segments(
                        audio.load_audio(corpus / "test" / other / f"0{i}.wav", config.sr), config)) for i in range(3)]
                    scores.append(float(probe @ measures.unit_mean(vectors)))
                    labels.append(owner == other)
        scores, labels = np.array(scores), np.array(labels)
        assert rows[name]["eer"]["value"] == pytest.approx(measures.equal_error_rate(scores, labels)[0])
        assert rows[name]["far"]["value"] == pytest.approx(np.mean(scores[~labels] >= threshold))
        assert rows[name]["frr"]["value"] == pytest.approx(np.mean(scores[labels] < threshold))


@pytest.mark.parametrize("listed", [False, True])
def test_who_babbles_behind_a_probe_is_not_compared_with_it(stressed, corpus, listed, monkeypatch):
    """By hand: those whose recordings are read while the copy is made; by the protocol and by a list of trials."""
    folder, flags, _ = stressed
    monkeypatch.chdir(folder)
    voices = {path.name: str(path) for path in sorted((corpus / "test").iterdir())}
    probes = [f"{owner}/0{take}.wav" for owner in voices for take in range(3, 6)]
    pathlib.Path("list").write_text("\n".join(
        f"{int(probe.startswith(other))} {other}/00.wav {probe}" for probe in probes for other in voices))
    config = configuration.get_config(flags)
    config.trials = "list"
    findings = (evaluation_script.score_trials if listed else evaluation_script.score_speakers)(config)
    compared = collections.defaultdict(set)
    for _, scored in (row for row in findings.conditions if row[0] == "babble 10 dB"):
        for enrolled, probe in zip(scored.enrolled, scored.probes, strict=True):
            compared[probe].add(enrolled.split("/")[0])
    heard, real = set(), audio.load_audio
    monkeypatch.setattr(audio, "load_audio",
                        lambda path, sr: heard.add(pathlib.Path(path).parent.name) or real(path, sr))
    for probe in probes:
        owner, wave = probe.split("/")[0], real(corpus / "test" / probe, 16000)
        name = f"{common.short_digest(probe)}/." if listed else probe
        around = conditions.Surroundings(tuple(voices.values())).beside(
            str(corpus / "test" / (probe if listed else owner)))
        heard.clear()
        seed = int(common.short_digest(f"{name}/babble 10 dB"), 16)
        around.under("babble 10 dB", wave, 16000, np.random.default_rng(seed))
        assert heard
        assert compared[probe] == voices.keys() - heard


def test_the_costs_of_all_conditions_together_equal_a_plain_sum(stressed):
    """Brummer and du Preez 2006, eq. 8, over the trials of two conditions; one trial without speech does not count."""
    rng, calibration = np.random.default_rng(3), measures.Calibration((8.0,), (-4.0,))
    labels = np.arange(40) < 12
    scores = rng.normal(np.where(labels, 0.7, 0.3), 0.2)
    scores[3] = -np.inf
    places = np.zeros(20, int)
    rows = [(name, measures.Scored(["a"] * 20, ["b"] * 20, scores[part], labels[part], places, places, {}, {}))
            for name, part in (("as recorded", slice(20)), ("telephone", slice(20, 40)))]
    pooled = measures.pooled_costs(rows, calibration)
    ratios = 8 * np.delete(scores, 3) - 4
    signs = np.where(np.delete(labels, 3), -1, 1)
    costs = [np.mean([np.log2(1 + np.exp(sign * ratio)) for sign, ratio in zip(signs, ratios, strict=True)
                      if sign == kind]) for kind in (-1, 1)]
    assert pooled["cllr"] == pytest.approx(sum(costs) / 2)
    assert 0 < pooled["min_cllr"] < pooled["cllr"]
    silent = [(name, replace(scored, scores=np.full(20, -np.inf))) for name, scored in rows]
    assert measures.pooled_costs(silent, calibration) == {}
    folder, _, printed = stressed
    stored = json.loads((folder / "report" / "evaluation.json").read_text())["pooled"]
    lines = printed[printed.index("All conditions together"):].splitlines()
    assert lines[2].split() == ["Cllr", f"{stored['cllr']:.4f}"]
    assert lines[3].split() == ["min", "Cllr", f"{stored['min_cllr']:.4f}"]


def test_with_copies_all_that_is_embedded_counts(stressed, monkeypatch):
    """A test's speed is that of originals and copies; a cohort is of originals alone."""
    folder, flags, _ = stressed
    monkeypatch.chdir(folder)
    config = configuration.get_config(flags)
    speakers, _ = protocol.speakers_to_test(config, embedding.load_config(config.model_path))
    originals = [utterance for speaker in speakers for utterance in speaker.utterances]
    parts = [part for utterance in originals for part in (utterance, *utterance.copies)]
    assert len(parts) > 10 * len(originals)
    found = evaluation_script.score_speakers(config).evaluation
    assert found.embedded_seconds == pytest.approx(sum(part.speech_seconds for part in parts if part.count))
    embedded, embed_rows = [], embedding.embed_rows
    monkeypatch.setattr(embedding, "embed_rows", lambda encoder, rows: embedded.append(len(rows)) or embed_rows(
        encoder, rows))
    home = speakers[0].path.parent
    evaluation_script.embed_cohort(embedding.load_encoder(config.model_path)[0], home, config)
    assert sum(embedded) == sum(utterance.count for utterance in originals)


def test_what_is_written_is_there_though_nobody_reads_what_is_printed(trained, made_features, tmp_path):
    flags = ["--model_path", trained, "--test_path", made_features / "test", "--M", 1, "--report_path", tmp_path / "r"]
    command = [sys.executable, evaluation_script.__file__, *map(str, flags)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        process.stdout.close()
        process.wait(timeout=120)
    assert json.loads((tmp_path / "r" / "evaluation.json").read_text())["enrolment_utterances"] == 1


def test_a_second_run_finds_its_features(stressed, monkeypatch, capsys):
    folder, flags, _ = stressed
    monkeypatch.chdir(folder)
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "cache").rglob("*.npy")}
    monkeypatch.setattr(audio, "load_audio", None)                              # nothing is read again
    before = (folder / "report" / "evaluation.json").read_text()
    assert evaluation_script.main(flags) == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "cache").rglob("*.npy")} == stamps
    first, second = json.loads(before), json.loads((folder / "report" / "evaluation.json").read_text())
    assert first["conditions"] == second["conditions"]


def test_a_list_under_conditions(stressed, trained, corpus, tmp_path, monkeypatch, capsys):
    """Enrolled as recorded, compared under each condition: one trial by hand."""
    _, flags, _ = stressed
    monkeypatch.chdir(tmp_path)
    lines = ["1 voice08/00.wav voice08/01.wav", "0 voice08/00.wav voice09/01.wav", "1 voice09/00.wav voice09/02.wav",
             "0 voice10/03.wav voice09/02.wav"]
    (tmp_path / "list").write_text("\n".join(lines))
    flags = [flag for flag in flags if flag not in ("--M", "3")]
    assert evaluation_script.main([*flags, "--trials", str(tmp_path / "list")]) == 0
    config = configuration.get_config([*flags, "--trials", str(tmp_path / "list")])
    findings = evaluation_script.score_trials(config)
    rows = dict(findings.conditions)
    assert rows.keys() == {"as recorded", *conditions.Surroundings(("a",), ("b",)).conditions, "first 1 s of speech",
                           "first 2 s of speech", "first 5 s of speech"}
    encoder, model_config = embedding.load_encoder(trained)
    wave = audio.load_audio(corpus / "test" / "voice09" / "01.wav", model_config.sr)
    speaker = common.short_digest("voice09/01.wav")
    rng = np.random.default_rng(int(common.short_digest(f"{speaker}/./telephone"), 16))
    probe = embedding.embed(encoder, audio.segments(conditions.telephone(wave, model_config.sr, rng), model_config))
    enrolled = embedding.embed(encoder, audio.segments(
        audio.load_audio(corpus / "test" / "voice08" / "00.wav", model_config.sr), model_config))
    assert rows["telephone"].scores[1] == pytest.approx(float(enrolled @ probe), abs=1e-5)
    assert rows["telephone"].labels.tolist() == [True, False, True, False]
    assert len(rows["first 5 s of speech"].scores) == 0
    assert rows["as recorded"].known["enrolments"].tolist() == [1, 1, 1, 1]


def test_conditions_need_audio(fails, trained, made_features):
    assert fails(evaluation_script.main, "--model_path", trained, "--test_path", made_features / "test", "--conditions"
                 ) == "error: --conditions is True: it needs audio, give --raw_path"


def test_no_threshold_is_asked_for_by_hand(fails, trained):
    assert "--threshold" not in fails(evaluation_script.main, "--model_path", trained, "--test_path", "nothing",
                                      "--far", "0.02")


@pytest.mark.parametrize(("flag", "value", "words"), [("--far", "0.02", "--far is 0.02: "),
                                                      ("--far", "0.02", "choose 0.01 or 0.001, which can be stored"),
                                                      ("--snorm", "gone", "--snorm is gone: there is no such folder")])
def test_what_cannot_be_is_said_before_the_work(fails, trained, flag, value, words):
    assert words in fails(evaluation_script.main, "--model_path", trained, "--test_path", "nothing", flag, value)


@pytest.mark.parametrize(("flag", "words"), [("--report_path", "it cannot be written"),
                                             ("--save_embeddings", "it cannot be written (Is a directory)")])
def test_what_cannot_be_written_is_said_before_the_work(fails, trained, tmp_path, flag, words):
    (tmp_path / "file").touch()
    place = tmp_path if flag == "--save_embeddings" else tmp_path / "file"
    line = fails(evaluation_script.main, "--model_path", trained, "--test_path", "nothing", flag, place)
    assert f"{flag} is {place}: {words}" in line
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_cohort_that_does_not_fit_is_said_before_the_work(fails, trained, write_features):
    def said(folder):
        return fails(evaluation_script.main, "--model_path", trained, "--test_path", "nothing", "--snorm", folder)

    assert "it has 1 speaker, a cohort needs at least 2" in said(write_features([[1, 1]], "one"))
    assert "was made with --sr 16000, the model with 8000" in said(write_features([[1], [1]], "other", sr=16000))


def test_probes_without_any_speech_are_no_test(fails, trained, write_features):
    folder = write_features([[1, 1, 0], [1, 1, 0]])
    assert "none of the 2 probes holds speech: test with other recordings" in fails(
        evaluation_script.main, "--model_path", trained, "--test_path", folder, "--M", 2)


def test_thresholds_of_another_checkpoint_are_not_replaced(fails, trained, tmp_path):
    before = (trained / "thresholds.json").read_text()
    line = fails(evaluation_script.main, "--model_path", trained, "--test_path", "nothing", "--store_threshold", "True",
                 "--model_num", 99)
    assert f"stores the thresholds of checkpoint {json.loads(before)['model_num']}, which --store_threshold" in line
    assert (trained / "thresholds.json").read_text() == before


def test_a_model_without_thresholds_has_none_for_a_rate(fails, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "model")
    (tmp_path / "model" / "thresholds.json").unlink()
    assert "stores no threshold" in fails(evaluation_script.main, "--model_path", tmp_path / "model", "--test_path",
                                          "nothing", "--far", "0.01")


def test_a_threshold_given_by_hand_is_named_in_the_report(trained, made_features, tmp_path, capsys):
    flags = ["--model_path", trained, "--test_path", made_features / "test", "--report_path", tmp_path,
             "--M", "3"]
    stored = embedding.read_thresholds(trained)["points"]["eer"]["threshold"]
    for more, words in (((), f"threshold {stored:.4f}, measured on 4 validation speakers, 3 enrolment utterances each"),
                        (("--threshold", "0.9"), "threshold 0.9000, given by --threshold")):
        assert evaluation_script.main([*map(str, flags), *more]) == 0
        assert f"Conditions, FAR and FRR at the {words}" in capsys.readouterr().out
        assert words in (tmp_path / "report.html").read_text()


def test_what_would_be_lost_is_refused_first(fails, trained, made_features, tmp_path):
    """Embeddings where the report goes; a rate that more speakers would show."""
    flags = ["--model_path", trained, "--test_path", made_features / "test", "--M", "3"]
    (tmp_path / "link").symlink_to(tmp_path / "r")
    assert "--report_path makes a folder of that name" in fails(
        evaluation_script.main, *flags, "--report_path", tmp_path / "r", "--save_embeddings", tmp_path / "link")
    assert "; measure on more speakers with python test.py" in fails(evaluation_script.main, *flags, "--far", "0.001")
    assert not (tmp_path / "r").exists()


def test_no_report_is_written_among_features(fails, trained, made_features):
    line = fails(evaluation_script.main, "--model_path", trained, "--test_path", made_features / "test", "--M", "3",
                 "--report_path", made_features / "test")
    assert f"--report_path is {made_features / 'test'}: that holds features" in line


def test_a_damaged_history_is_said_before_the_work(fails, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "model")
    (tmp_path / "model" / "history.csv").write_text("iteration\nx\n")
    assert "history.csv is damaged" in fails(evaluation_script.main, "--model_path", tmp_path / "model", "--test_path",
                                             "nothing")


def test_what_is_stored_is_what_is_printed(stressed, trained, tmp_path, capsys, monkeypatch):
    """Ratios under all conditions; then scores as recorded, and that these know less."""
    folder, flags, _ = stressed
    monkeypatch.chdir(folder)
    shutil.copytree(trained, tmp_path / "model")
    flags = [*flags, "--store_threshold", "True"]
    flags[flags.index("--model_path") + 1] = str(tmp_path / "model")
    for under_conditions in (True, False):
        flags[flags.index("--conditions") + 1] = str(under_conditions)
        assert evaluation_script.main(flags) == 0
        points = json.loads((tmp_path / "model" / "thresholds.json").read_text())["points"]
        assert ("llr" in points["eer"]) == under_conditions
        printed = capsys.readouterr().out
        assert f"thresholds: EER at {points['eer']['threshold']:.4f}" in printed
        assert ("the thresholds before were ratios that know conditions" in printed) != under_conditions
