"""Evaluate a model: what a researcher reports of its scores, with intervals and pictures.

    python test.py --model_path ./model --test_path ./test_tisv
    python test.py --model_path ./model --raw_path DIR              audio instead of features
    python test.py --model_path ./model --raw_path DIR --trials LIST      a list of trials
    python test.py --store_threshold True                           store the measured thresholds with the model

Without a list each speaker enrols with --utterance_number utterances; all others are probes against every speaker.
Figures, pictures and all scores are written to --report_path.
"""
import functools
import pathlib
import re
import shlex
import sys
from dataclasses import dataclass, field

import numpy as np
import scipy

import audio
import common
import configuration
import embedding
import features
import measures
import report
import utils
from common import InputError, write_whole

SCORED_AT_ONCE = 100_000     # trials
PROBE_SECONDS = (1, 2, 5)    # of speech, in the table by condition
ENROLMENTS = (1, 3, 5)       # enrolment utterances, in the table by condition
COHORT = 200                 # highest scores against the cohort, in adaptive s-norm


@dataclass
class Findings:
    """What was scored, and what the report needs to know of it."""

    encoder: embedding.Encoder
    scored: measures.Scored
    seconds: dict                   # {name: seconds of speech} of the d-vectors
    sources: list                   # files that the d-vectors were made of
    notes: list
    evaluation: utils.Evaluation = None         # of the enrolment protocol, not of a list
    conditions: list = field(default_factory=list)


# ---- trial lists ------------------------------------------------------------------------------------------------

def read_trials(path):
    """Read a list of trials.

    Parameters
    ----------
    path : str or Path
        Lines `1 path1 path2` with 1 for a target trial and 0 (the VoxCeleb form), or `enrol-utt test-utt target` with
        target or nontarget (the Kaldi form).

    Returns
    -------
    list of (str, str, bool)
        What is enrolled, the probe, and whether they are the same person.
    """
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--trials is {path}: it cannot be read ({error})") from error
    trials = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if len(words) == 3 and words[0] in ("0", "1"):
            trials.append((words[1], words[2], words[0] == "1"))
        elif len(words) == 3 and words[2] in ("target", "nontarget"):
            trials.append((words[0], words[1], words[2] == "target"))
        elif words:
            raise InputError(f"--trials is {path}: line {number} is {line!r}, which is neither '1 path1 path2' nor "
                             "'enrol-utt test-utt target|nontarget'")
    if not trials:
        raise InputError(f"--trials is {path}: it holds no trials")
    return trials


def find_recordings(names, folder):
    """Return {name: Path or None} of the recordings a list names: by path, by path without suffix, or by file name."""
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise InputError(f"--raw_path is {folder}: there is no such folder")
    known = {}
    for file in map(pathlib.PurePosixPath, audio.audio_files(folder)[0]):
        for key in {str(file), str(file.with_suffix("")), file.name, file.stem}:
            known.setdefault(key, []).append(folder / file)
    found = {}
    for name in names:
        other_suffix = name
        if pathlib.PurePosixPath(name).suffix.lower() in audio.SUFFIXES:
            other_suffix = str(pathlib.PurePosixPath(name).with_suffix(""))
        candidates = known.get(name) or known.get(other_suffix) or []
        exact = [path for path in candidates if path == folder / name]
        found[name] = (exact or candidates)[0] if exact or len(candidates) == 1 else None
    return found


def number_speakers(trials):
    """Return the speakers (n, 2) of both sides of trials, numbered from 0.

    A name begins with its speaker, up to the first / or -; where the labels deny that, files that target trials link
    are one speaker.
    """
    names = sorted({name for enrolled, probe, _ in trials for name in (enrolled, probe)})
    place = {name: number for number, name in enumerate(names)}
    pairs = np.array([(place[enrolled], place[probe]) for enrolled, probe, _ in trials])
    labels = np.array([same for *_, same in trials])
    _, owners = np.unique([re.split("[/-]", name)[0] for name in names], return_inverse=True)
    if ((owners[pairs[:, 0]] == owners[pairs[:, 1]]) != labels).any():
        links = scipy.sparse.coo_array((np.ones(labels.sum()), pairs[labels].T), (len(names), len(names)))
        _, owners = scipy.sparse.csgraph.connected_components(links, directed=False)
    return owners[pairs]


def score_trials(config):
    """Score the list of config.trials on the audio in config.raw_path.

    Returns
    -------
    Findings

    Raises
    ------
    InputError
        If audio is missing or without speech, unless config.allow_missing is set.
    """
    trials = read_trials(config.trials)
    encoder, stored = embedding.open_model(config)
    paths = find_recordings(sorted({name for trial in trials for name in trial[:2]}), config.raw_path)
    heard = embedding.embed_files(encoder, [path for path in paths.values() if path], config)
    losses = [f"{name} is not in {config.raw_path}, or more than once" for name, path in paths.items() if not path]
    losses += [f"{name} {heard[path][2]}" for name, path in paths.items() if path and heard[path][0] is None]
    vectors = {name: heard[path][0] for name, path in paths.items() if path and heard[path][0] is not None}
    kept = [trial for trial in trials if trial[0] in vectors and trial[1] in vectors]
    configuration.print_skipped(losses)
    left_out = f"{len(losses)} of its {len(paths)} recordings are missing or hold no speech"
    if len(kept) < len(trials) and not config.allow_missing:
        raise InputError(f"--trials is {config.trials}: {left_out}, which {len(trials) - len(kept)} of {len(trials)} "
                         "trials need; complete them, or give --allow_missing True to leave those out")
    if not kept:
        raise InputError(f"--trials is {config.trials}: {left_out}, and no trial is left")
    notes = embedding.model_notes(config, stored)
    if len(kept) < len(trials):
        notes.append(f"{len(trials) - len(kept)} of {len(trials)} trials are left out: {left_out}")
    enrolled, probes, labels = zip(*kept, strict=True)
    scored = measures.Scored(list(enrolled), list(probes), trial_cosines(vectors, enrolled, probes), np.array(labels),
                          *number_speakers(kept).T, vectors)
    seconds = {name: heard[path][1] for name, path in paths.items() if name in vectors}
    return Findings(encoder, scored, seconds, [path for path in paths.values() if path], notes)


def trial_cosines(vectors, enrolled, probes):
    """Return the scores (n,) of n pairs of names, given {name: d-vector (D,)}."""
    place = {name: number for number, name in enumerate(vectors)}
    matrix = np.stack(list(vectors.values()))                                   # (U, D)
    pairs = np.array([[place[name] for name in names] for names in (enrolled, probes)])
    parts = np.array_split(pairs, -(-len(enrolled) // SCORED_AT_ONCE), axis=1)
    return np.concatenate([np.einsum("nd,nd->n", matrix[part[0]], matrix[part[1]]) for part in parts]).astype(float)


# ---- the enrolment protocol -------------------------------------------------------------------------------------

def score_speakers(config):
    """Enrol each test speaker and score all other utterances against all; return Findings. As model.test."""
    encoder, stored = embedding.open_model(config)
    speakers, notes = utils.speakers_to_test(config, stored)
    embed_speaker = functools.partial(embedding.embed_speaker, encoder)
    evaluation = utils.evaluate(embed_speaker, speakers, config.utterance_number)
    seconds = {}
    for speaker in speakers:
        enrolment, _ = utils.enrol_and_probe(speaker, config.utterance_number)
        seconds[speaker.name] = sum(utterance.speech_seconds for utterance in enrolment)
        seconds.update({f"{speaker.name}/{utterance.file}": utterance.speech_seconds for utterance in speaker.voiced})
    conditions = by_probe_seconds(encoder, speakers, evaluation, config) + by_enrolment(evaluation)
    return Findings(encoder, evaluation.scored(), seconds, [speaker.path for speaker in speakers],
                    evaluation.notes + embedding.model_notes(config, stored) + notes, evaluation, conditions)


def shortened_probes(encoder, speakers, evaluation, seconds, config):
    """Return d-vectors (P, D) of the first `seconds` of speech of an evaluation's probes; NaN where there is less."""
    silence, vectors = np.full(evaluation.probe_vectors.shape[1], np.nan, np.float32), []
    hop_length, utterances = round(config.hop * config.sr), {}
    for speaker in speakers:
        rows = speaker.load()
        utterances.update({(speaker.name, utterance.file): (rows, utterance) for utterance in speaker.voiced})
    for probe in evaluation.probes:
        rows, utterance = utterances.get(probe, (None, None))
        if utterance is None or utterance.speech_seconds < seconds:
            vectors.append(silence)
            continue
        total = 1 + round(utterance.speech_seconds * config.sr) // hop_length
        frames = audio.frames_of(rows[utterance.first:utterance.first + utterance.count], total)
        frames = frames[:round(seconds / config.hop)]
        vectors.append(embedding.embed(encoder, audio.cut_segments(frames, rows.shape[2])))
    return np.array(vectors)


def by_probe_seconds(encoder, speakers, evaluation, config):
    """Return rows of the EER over the seconds of probe speech: (condition, probes, EER or None)."""
    rows = []
    for seconds in PROBE_SECONDS:
        vectors = shortened_probes(encoder, speakers, evaluation, seconds, config)
        heard = np.isfinite(vectors).all(axis=1)
        scores = utils.enrolment_scores(evaluation.enrolment_vectors, vectors[heard])
        rate = eer_or_none(scores, evaluation.labels[heard])
        rows.append((f"first {seconds} s of the probe", int(heard.sum()), rate))
    return [*rows, ("all of the probe", len(evaluation.probes), evaluation.eer)]


def by_enrolment(evaluation):
    """Return rows of the EER over the number of enrolment utterances: (condition, probes, EER or None)."""
    rows = []
    for number in ENROLMENTS:
        if number <= evaluation.enrolment_utterances:
            scores = utils.enrolment_scores(evaluation.enrolment_vectors[:, :number], evaluation.probe_vectors)
            rows.append((f"{number} enrolment utterance{'s' * (number > 1)}", len(scores),
                         eer_or_none(scores, evaluation.labels)))
    return rows


def eer_or_none(scores, labels):
    """Return the EER of (P, S) scores, None where target or non-target trials are missing."""
    return measures.equal_error_rate(scores, labels)[0] if labels.any() and not labels.all() else None


def worst_speakers(scored, names, threshold):
    """Return up to ten speakers that err most at a threshold, the worst first.

    Each row is the speaker's name, the share of its target trials rejected, that of its non-target trials accepted,
    and the speaker it is most confused with, on the mean score.
    """
    rows, wrong = [], (scored.scores >= threshold) != scored.labels
    for number, name in enumerate(names):
        own = scored.labels & (scored.probe_speakers == number)
        others = ~scored.labels & ((scored.probe_speakers == number) | (scored.enrolled_speakers == number))
        if not own.any() or not others.any():
            continue
        partners = np.where(scored.probe_speakers == number, scored.enrolled_speakers, scored.probe_speakers)[others]
        heard = np.where(np.isfinite(scored.scores[others]), scored.scores[others], -1)
        means = np.bincount(partners, heard) / np.maximum(np.bincount(partners), 1)
        means[np.bincount(partners) == 0] = -np.inf
        rows.append((name, float(wrong[own].mean()), float(wrong[others].mean()), names[int(np.argmax(means))]))
    return sorted(rows, key=lambda row: -row[1] - row[2])[:10]


def embed_cohort(encoder, folder, config):
    """Return the names of the speakers of a feature folder, their d-vectors (C, D), and notes on the features.

    A speaker's d-vector is the normalised mean of those of its utterances.
    """
    speakers, settings = features.load_features(folder)
    notes = features.check_features(speakers, settings, features.feature_settings(config), folder)
    names = [speaker.name for speaker in speakers]
    speakers = common.progress(speakers, desc=f"cohort {folder}", unit="speaker")
    vectors = [measures.unit_mean(list(embedding.embed_speaker(encoder, speaker).values())) for speaker in speakers]
    return names, np.stack(vectors), notes


# ---- the figures ------------------------------------------------------------------------------------------------

def gather_figures(findings, config):
    """Return all figures of a run, a dict of plain values, for evaluation.json and report.html."""
    scored, stored = findings.scored, embedding.load_thresholds(config.model_path, config.model_num)
    figures = {"measures": report.without_infinities(scored.figures((stored or {}).get("calibration"), config.seed)),
               "points": measures.operating_points(scored.scores, scored.labels),
               "target_trials": int(scored.labels.sum()), "non_target_trials": int((~scored.labels).sum())}
    figures["eer"] = figures["measures"]["eer"]["value"]
    if config.snorm:
        names, others, notes = embed_cohort(findings.encoder, config.snorm, config)
        findings.notes.extend(notes)
        both = set(findings.scored.enrolled) & set(names)
        if both:
            findings.notes.append(f"{len(both)} speakers of --snorm {config.snorm} carry names of test speakers: a "
                                  "cohort must be of others")
        after = measures.all_measures(measures.Trials(scored.s_norm(others, COHORT), scored.labels))
        figures["snorm"] = {"cohort": str(config.snorm), "speakers": len(others),
                            "highest": min(COHORT, len(others)), "measures": after}
    if findings.evaluation:
        names = findings.evaluation.speakers
        rows = worst_speakers(scored, names, figures["points"]["eer"]["threshold"])
        figures |= protocol_figures(findings.evaluation) | {
            "conditions": [dict(zip(("condition", "probes", "eer"), row, strict=True)) for row in findings.conditions],
            "worst_speakers": [dict(zip(("speaker", "rejected", "accepted", "confused_with"), row, strict=True))
                               for row in rows]}
    return figures | {
        "notes": findings.notes, "model": str(config.model_path), "model_num": config.model_num,
        "model_sha256": findings.encoder.sha256,
        "data_sha256": embedding.fingerprint(path.read_bytes() for path in findings.sources),
        "command": shlex.join(sys.argv), "versions": common.versions()}


def protocol_figures(evaluation):
    """Return what the report holds of the enrolment protocol."""
    similarity = evaluation.matrix()
    return {"speakers": evaluation.speakers, "enrolment_utterances": evaluation.enrolment_utterances,
            "probes": len(evaluation.probes), "probes_without_speech": evaluation.without_speech,
            "similarity": np.where(np.isfinite(similarity), similarity, None).tolist(),    # None: no speech
            "embedding_times_real_time": evaluation.embedded_seconds / evaluation.elapsed_seconds}


def save_embeddings(path, findings):
    """Write names, d-vectors (U, D) and seconds of speech of all that was embedded, as .npz."""
    names = sorted(name for name, vector in findings.scored.vectors.items() if np.isfinite(vector).all())
    write_whole(path, lambda file: np.savez(
        file, names=np.array(names), vectors=np.stack([findings.scored.vectors[name] for name in names]),
        seconds=np.array([findings.seconds[name] for name in names])))


def work(config):
    """Evaluate, print, write the report, and store the thresholds where that is wanted."""
    for mode in ("train", "verify", "export"):
        value = getattr(config, mode)
        if value:
            raise InputError(f"--{mode} is {value}: test.py only tests; python model.py --{mode} {value} does that")
    findings = score_trials(config) if config.trials else score_speakers(config)
    evaluation, scored = findings.evaluation, findings.scored
    if evaluation:
        print(evaluation.describe())
    stored = embedding.load_thresholds(config.model_path, config.model_num)
    print(measures.describe_rates(scored.scores, scored.labels, stored))
    figures = gather_figures(findings, config)
    for table in report.tables(figures):
        print(report.text_table(*table))
    for note in findings.notes:
        print("note:", note)
    history = pathlib.Path(config.model_path, "history.csv")
    print("report:", ", ".join(map(str, report.write_report(
        config.report_path, figures, scored, evaluation, utils.History(history, sys.maxsize).rows))))
    if config.save_embeddings:
        save_embeddings(config.save_embeddings, findings)
    if config.store_threshold:
        source = f"{len(evaluation.speakers)} test speakers, {config.utterance_number} enrolment utterances each"
        embedding.store_thresholds(config.model_path, config.model_num, evaluation, source)
        print(f"stored with {config.model_path}: {measures.describe_points(evaluation.points)}")
        if evaluation.targets < report.FEWEST_TARGETS:
            print(f"note: a threshold of {evaluation.targets} target trials is not trustworthy; use more speakers")
    return 0


def main(argv=None):
    """Run the command line; return the exit code."""
    return configuration.run(work, argv, "test", __doc__)


if __name__ == "__main__":
    sys.exit(main())
