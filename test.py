"""Evaluate a model: what a researcher reports of its scores, with intervals and pictures.

    python test.py --model_path ./model --test_path ./test_tisv
    python test.py --model_path ./model --raw_path DIR              audio instead of features
    python test.py --model_path ./model --raw_path DIR --trials LIST      a list of trials
    python test.py --model_path ./model --raw_path DIR --conditions True     also in noise, rooms, over telephones
    python test.py --store_threshold True                           store the measured thresholds with the model

Without a list each speaker enrols with --utterance_number utterances; all others are probes against every speaker.
Figures, pictures and all scores are written to --report_path.
"""
import functools
import pathlib
import shlex
import sys
from dataclasses import dataclass, field, replace

import numpy as np

import audio
import common
import configuration
import data_preprocess
import embedding
import features
import measures
import protocol
import report
import utils
from common import InputError, check_target, write_whole

SCORED_AT_ONCE = 100_000     # trials
PROBE_SECONDS = (1, 2, 5)    # of speech, in the table by condition
ENROLMENTS = (1, 3, 5)       # enrolment utterances, in the table by condition
CONDITION_MEASURES = ("eer", "eer_llr", "min_dcf", "far", "frr")       # in the table by condition
COHORT = 200                 # highest scores against the cohort, in adaptive s-norm


@dataclass
class Findings:
    """What was scored, and what the report needs to know of it."""

    encoder: embedding.Encoder
    scored: measures.Scored
    seconds: dict                   # {name: seconds of speech} of the d-vectors
    sources: list                   # files that the d-vectors were made of
    notes: list
    evaluation: protocol.Evaluation = None         # of the enrolment protocol, not of a list
    conditions: list = field(default_factory=list)      # (name, measures.Scored) of the probes under each
    stored: dict = None             # the model's thresholds
    trials: measures.KnownTrials = None         # for a calibration that knows conditions
    other_texts: measures.Scored = None         # the right speaker with the right text or another
    people: set = frozenset()       # names of the speakers; of a list, all beginnings of its files' names


def open_model(config):
    """Return the encoder, what its config.json holds and its thresholds, None without any.

    InputError before any work where they lack what --far asks for, or the cohort of --snorm does not fit.
    """
    encoder, stored = embedding.open_model(config)
    if config.snorm and "sr" in stored["flags"]:        # else those of the test's features may yet become the model's
        cohort_speakers(config.snorm, config)
    thresholds = embedding.load_thresholds(config.model_path, config.model_num)
    if thresholds or config.far is not None:
        embedding.choose_point(thresholds, config)
    return encoder, stored, thresholds


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
        lines = pathlib.Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--trials is {path}: it cannot be read ({error})") from error
    trials = []
    for number, line in enumerate(lines, 1):
        words = [word.strip() for word in line.split("\t")] if line.count("\t") == 2 else line.split()
        if len(words) == 3 and words[2].lower() in ("target", "nontarget"):         # first: its names may be 0 and 1
            trials.append((words[0], words[1], words[2].lower() == "target"))
        elif len(words) == 3 and words[0] in ("0", "1"):
            trials.append((words[1], words[2], words[0] == "1"))
        elif words:
            raise InputError(f"--trials is {path}: line {number} is {line!r}, which is neither '1 path1 path2' nor "
                             "'enrol-utt test-utt target|nontarget'")
    targets = sum(same for *_, same in trials)
    if not 0 < targets < len(trials):
        raise InputError(f"--trials is {path}: it holds {targets} target and {len(trials) - targets} other trials, and "
                         "error rates need both")
    return trials


def find_recordings(names, folder):
    """Return {name: Path or None} of the recordings that a list names.

    A name is a path, with or without its suffix or with - for / (Kaldi's names of VoxCeleb), or the name of a file.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise InputError(f"--raw_path is {folder}: there is no such folder")
    spellings = [{} for _ in range(5)]
    for file in map(pathlib.PurePosixPath, audio.audio_files(folder)[0]):
        bare = str(file.with_suffix(""))
        for known, key in zip(spellings, (str(file), bare, bare.replace("/", "-"), file.name, file.stem), strict=True):
            known.setdefault(features.normal_form(key), []).append(folder / file)
    found = {}
    for name in names:
        plain = pathlib.PurePosixPath(features.normal_form(name))
        for place in (folder.absolute(), folder.resolve()):
            if plain.is_relative_to(place):
                plain = plain.relative_to(place)
        other_suffix = plain.with_suffix("") if plain.suffix.lower() in audio.SUFFIXES else plain
        candidates = [known[key] for key in (str(plain), str(other_suffix)) for known in spellings if key in known]
        found[name] = candidates[0][0] if candidates and len(candidates[0]) == 1 else None
    return found


def names_below(folder, paths):
    """Return {name: the name of its file below a folder} of {name: path or None}."""
    return {name: features.normal_form(path.relative_to(folder).as_posix()) for name, path in paths.items() if path}


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
    encoder, stored, thresholds = open_model(config)
    paths = find_recordings(sorted({name for trial in trials for name in trial[:2]}), config.raw_path)
    lost = {name: f"is not in {config.raw_path}, or more than once" for name, path in paths.items() if not path}
    if not config.allow_missing:
        trials_left(config, trials, paths, lost)            # said before hours of work
    found = [path for path in paths.values() if path]
    files = names_below(config.raw_path, paths)
    people = {person for file in files.values() for person in protocol.people_in(file)}
    notes = [*embedding.model_notes(config, stored), *trial_notes(trials, paths, protocol.seen_among(stored, people))]
    speakers = listed_speakers(config, found) if config.conditions else {}
    heard = embed_listed(encoder, speakers) if speakers else embedding.embed_files(encoder, found, config)
    heard = {name: heard[path] for name, path in paths.items() if path}
    lost |= {name: entry["dropped"] for name, (vector, entry) in heard.items() if vector is None}
    kept, left_out = trials_left(config, trials, paths, lost)
    vectors, entries = ({name: found[place] for name, found in heard.items() if name not in lost} for place in (0, 1))
    enrolled, probes, labels = zip(*kept, strict=True)
    numbers, guessed = protocol.number_speakers([(files[own], files[other], same) for own, other, same in kept])
    scored = measures.Scored(
        list(enrolled), list(probes), trial_cosines(vectors, vectors, enrolled, probes), np.array(labels),
        *numbers.T, vectors, probe_knowledge(entries, probes) | {
            "enrolled_seconds": np.array([entries[name]["speech_seconds"] for name in enrolled]),
            "enrolments": np.ones(len(kept))})
    known = {name: speakers[paths[name]] for name in vectors if speakers}
    return Findings(encoder, scored, {name: entry["speech_seconds"] for name, entry in entries.items()}, found,
                    notes + left_out + guessed,
                    conditions=listed_conditions(encoder, known, scored, files, config) if known else [],
                    stored=thresholds, people=people)


def trial_notes(trials, paths, seen):
    """Return notes on what makes a list of trials, whose recordings are {name: path or None}, tell less than it seems.

    `seen` are those of its speakers that the model has heard. InputError where it calls one pair the same person and
    another.
    """
    told, known = {}, [trial for trial in trials if paths[trial[0]] and paths[trial[1]]]
    for enrolled, probe, same in known:
        pair = tuple(sorted((paths[enrolled], paths[probe])))           # either may enrol
        if told.setdefault(pair, same) != same:
            raise InputError(f"--trials has {enrolled} and {probe} as the same person and as another")
    alone = sum(enrolled == probe for enrolled, probe in told)
    counts = ((len(known) - len(told), "of {} trials are there twice, and count twice"),
              (alone, "of {} trials compare a recording with itself, which tells nothing"))
    return [f"{number} {words.format(len(trials))}" for number, words in counts if number] + (
        [f"{len(seen)} speakers carry {protocol.SEEN}"] if seen else [])


def trials_left(config, trials, paths, lost):
    """Return the trials whose recordings, {name: path or None}, are not lost, {name: why}, and a list of a note.

    InputError where some are lost that --allow_missing does not leave out, or all.
    """
    kept = [trial for trial in trials if trial[0] not in lost and trial[1] not in lost]
    if len(kept) == len(trials):
        return kept, []
    common.print_skipped([f"{name} {why}" for name, why in lost.items()])
    left_out = f"{len(lost)} of its {len(paths)} recordings are missing or hold no speech"
    if not config.allow_missing:
        raise InputError(f"--trials is {config.trials}: {left_out}, which {len(trials) - len(kept)} of {len(trials)} "
                         "trials need; complete them, or give --allow_missing True to leave those out")
    targets = sum(same for *_, same in kept)
    if not 0 < targets < len(kept):
        raise InputError(f"--trials is {config.trials}: {left_out}, and {targets} target and {len(kept) - targets} "
                         "other trials are left, where error rates need both")
    return kept, [f"{len(trials) - len(kept)} of {len(trials)} trials are left out: {left_out}"]


def probe_knowledge(entries, probes):
    """Return what is known of the probes of n trials, {name: (n,)} as in measures.TERMS, of {probe: entry or None}."""
    def column(key):
        return np.array([np.nan if not entries[name] or entries[name][key] is None else entries[name][key]
                         for name in probes], float)

    return {"probe_seconds": column("speech_seconds"), "snr": column("snr"), "bandwidth": column("bandwidth")}


def listed_speakers(config, paths):
    """Return {path: features.Speaker} of recordings with their copies under all conditions, each as a speaker."""
    folder, names = data_preprocess.cached_recordings(config, paths)
    found = {}
    for path, name in names.items():
        feature_file = folder / f"{name}.npy"           # none where it holds no speech
        found[path] = features.Speaker(name, feature_file, features.read_record(feature_file)[1])
    return found


def embed_listed(encoder, speakers):
    """Return {path: (d-vector (D,) or None, entry)} of the recordings of listed_speakers, as embedding.embed_files."""
    found = {}
    for path, speaker in common.progress(speakers.items(), desc="embedding", unit="file"):
        (utterance,) = speaker.utterances
        vectors = embedding.embed_speaker(encoder, speaker) if utterance.count else {}
        found[path] = vectors.get(utterance), utterance._asdict()
    return found


def probe_seconds(config):
    """Return the lengths in seconds to which probes are shortened: none with texts, as a part of a take is another."""
    return () if config.tdsv or config.tdsv_text else PROBE_SECONDS


def listed_conditions(encoder, speakers, scored, files, config):
    """Return (name, Scored) of a list's trials with its probes, {name: features.Speaker}, under each condition.

    Trials of somebody who babbles behind the probe do not count: `files` are all names' files below --raw_path.
    """
    names = sorted(set(scored.probes))
    owners = [speakers[name] for name in names]
    vectors = [embedding.embed_speaker(encoder, owner) for owner in owners]
    silence = np.full_like(next(iter(vectors[0].values())), np.nan)
    original = protocol.Probes("", [owner.utterances[0] for owner in owners],
                            np.array([own[owner.utterances[0]] for own, owner in zip(vectors, owners, strict=True)]))
    copies = protocol.copies_of([(name, utterance) for name, utterance in zip(names, original.utterances, strict=True)],
                             {(name, part): vector for name, own in zip(names, vectors, strict=True)
                              for part, vector in own.items()}, silence)
    embed_rows = functools.partial(embedding.embed_rows, encoder)
    short = [protocol.shorten(embed_rows, owners, original, seconds, config) for seconds in probe_seconds(config)]
    rows = [("as recorded", scored)]
    for probes in (*copies, *short):
        under = dict(zip(names, probes.vectors, strict=True))
        entries = {name: utterance and utterance._asdict()
                   for name, utterance in zip(names, probes.utterances, strict=True)}
        scores = np.nan_to_num(trial_cosines(scored.vectors, under, scored.enrolled, scored.probes), nan=-np.inf)
        known = scored.known | probe_knowledge(entries, scored.probes)
        there = np.array([entries[probe] is not None and files[own].split("/")[0] not in entries[probe]["babblers"]
                          for own, probe in zip(scored.enrolled, scored.probes, strict=True)])
        rows.append((probes.condition, replace(scored, scores=scores, known=known).part(there)))
    return rows


def trial_cosines(enrolled_vectors, probe_vectors, enrolled, probes):
    """Return the scores (n,) of n pairs of names, given {name: d-vector (D,)} of both sides."""
    sides = []
    for vectors, names in ((enrolled_vectors, enrolled), (probe_vectors, probes)):
        place = {name: number for number, name in enumerate(vectors)}
        sides.append((np.stack(list(vectors.values())), np.array([place[name] for name in names])))     # (U, D), (n,)
    parts = [np.array_split(numbers, -(-len(enrolled) // SCORED_AT_ONCE)) for _, numbers in sides]
    return np.concatenate([np.einsum("nd,nd->n", sides[0][0][left], sides[1][0][right])
                           for left, right in zip(*parts, strict=True)]).astype(float)


# ---- the enrolment protocol -------------------------------------------------------------------------------------

def score_speakers(config):
    """Enrol each test speaker and score all other utterances against all; return Findings. As model.test."""
    encoder, stored, thresholds = open_model(config)
    speakers, notes = protocol.speakers_to_test(config, stored)
    embed_speaker = functools.partial(embedding.embed_speaker, encoder)
    evaluation = protocol.evaluate(embed_speaker, speakers, config.utterance_number)
    if not np.isfinite(evaluation.scores).any():
        raise InputError(f"none of the {len(evaluation.probes)} probes holds speech: test with other recordings")
    seconds = {name: sum(utterance.speech_seconds for utterance in enrolment)
               for name, enrolment in zip(evaluation.speakers, evaluation.enrolments, strict=True)}
    seconds |= {f"{speaker.name}/{utterance.file}": utterance.speech_seconds
                for speaker in speakers for utterance in speaker.voiced}
    embed_rows = functools.partial(embedding.embed_rows, encoder)
    trials = None
    if config.conditions and config.store_threshold:
        trials = protocol.calibration_trials(evaluation, embed_rows, speakers, config)
    return Findings(encoder, evaluation.scored(), seconds, list(dict.fromkeys(speaker.path for speaker in speakers)),
                    evaluation.notes + embedding.model_notes(config, stored) + notes, evaluation,
                    speaker_conditions(embed_rows, speakers, evaluation, config),
                    thresholds, trials, evaluation.other_texts(), set(evaluation.people))


def speaker_conditions(embed_rows, speakers, evaluation, config):
    """Return (name, Scored) of the probes under each condition: their copies, shortened, against shorter enrolments."""
    by_name = {speaker.name: speaker for speaker in speakers}
    owners = [by_name[owner] for owner, _ in evaluation.probes]
    rows = [("as recorded", evaluation.scored())]
    short = [protocol.shorten(embed_rows, owners, evaluation.originals, seconds, config)
             for seconds in probe_seconds(config)]
    for probes in (*evaluation.copies, *short):
        there = np.array([utterance is not None for utterance in probes.utterances])
        under = evaluation.under(probes)
        rows.append((probes.condition, under.scored(under.compared & there[:, np.newaxis])))
    for number in ENROLMENTS:
        if number < evaluation.enrolment_utterances:
            under = evaluation.under(evaluation.originals, number)
            rows.append((f"{number} enrolment utterance{'s' * (number > 1)}", under.scored()))
    return rows


def condition_figures(name, scored, config, stored):
    """Return the row of a condition: its probes, EER of scores, of ratios, minDCF, FAR and FRR at the stored threshold.

    A figure is {"value", "low", "high"}, with its interval where --conditions is given; None where there is none to
    tell, as of trials of one kind.
    """
    row = {"condition": name, "probes": len(set(scored.probes))}
    if not scored.labels.any() or scored.labels.all():
        return row | dict.fromkeys(CONDITION_MEASURES)
    decided, trials = embedding.decide(stored, config, scored), measures.Trials(scored.scores, scored.labels)
    ratios = scored.ratios(embedding.calibration_of(stored))

    def measure(weights=None):
        far, frr = trials.rates(weights)
        equal = measures.equal_error(far, frr), measures.equal_error(*ratios.rates(weights)) if ratios else None
        rates = measures.decision_rates(decided[1], scored.labels, weights) if decided else (None, None)
        values = *equal, measures.min_dcf(far, frr, measures.P_TARGETS[0]), *rates
        return dict(zip(CONDITION_MEASURES, values, strict=True))

    intervals = measures.bootstrap(trials, scored.enrolled_speakers, scored.probe_speakers, measure=measure,
                                   seed=config.seed) if config.conditions else {}
    for key, value in measure().items():
        row[key] = None if value is None else measures.with_interval(value, intervals.get(key))
    return row


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


def cohort_speakers(folder, config):
    """Return the speakers of a cohort's feature folder, and notes on it; InputError where they do not fit."""
    speakers, settings = features.load_features(folder)
    notes = features.check_features(speakers, settings, features.feature_settings(config), folder)
    if len(speakers) < 2:
        raise InputError(f"--snorm is {folder}: it has {len(speakers)} speaker, a cohort needs at least 2")
    return speakers, notes


def embed_cohort(encoder, folder, config):
    """Return the names of the speakers of a feature folder, their d-vectors (C, D), and notes on the features.

    A speaker's d-vector is the normalised mean of those of its utterances, without copies.
    """
    speakers, notes = cohort_speakers(folder, config)
    names = [speaker.name for speaker in speakers]
    speakers = common.progress(speakers, desc=f"cohort {folder}", unit="speaker")
    vectors = []
    for speaker in speakers:
        originals = tuple(utterance._replace(copies=()) for utterance in speaker.utterances)
        own = embedding.embed_speaker(encoder, replace(speaker, utterances=originals))
        vectors.append(measures.unit_mean(list(own.values())))
    return names, np.stack(vectors), notes


# ---- the figures ------------------------------------------------------------------------------------------------

def gather_figures(findings, config):
    """Return all figures of a run, a dict of plain values, for evaluation.json and report.html."""
    scored, calibration = findings.scored, embedding.calibration_of(findings.stored)
    figures = {"measures": report.without_infinities(scored.figures(calibration, config.seed)),
               "points": measures.operating_points(scored.scores, scored.labels),
               "decided": (embedding.decide(findings.stored, config, scored) or [None])[0],
               "target_trials": int(scored.labels.sum()), "non_target_trials": int((~scored.labels).sum())}
    figures["eer"] = figures["measures"]["eer"]["value"]
    if config.snorm:
        names, others, notes = embed_cohort(findings.encoder, config.snorm, config)
        findings.notes.extend(notes)
        both = findings.people & {*names, *map(features.person_of, names)}
        if both:
            findings.notes.append(f"{len(both)} speakers of --snorm {config.snorm} carry names of test speakers: a "
                                  "cohort must be of others")
        after = measures.all_measures(measures.Trials(scored.s_norm(others, COHORT), scored.labels))
        figures["snorm"] = {"cohort": str(config.snorm), "speakers": len(others),
                            "highest": min(COHORT, len(others)), "measures": after}
    if findings.evaluation:
        names = findings.evaluation.people
        rows = worst_speakers(scored, names, figures["points"]["eer"]["threshold"])
        figures |= protocol_figures(findings.evaluation) | {
            "worst_speakers": [dict(zip(("speaker", "rejected", "accepted", "confused_with"), row, strict=True))
                               for row in rows]}
    rows = common.progress(findings.conditions, desc="conditions", unit="condition", disable=not config.conditions)
    if findings.conditions:
        figures["conditions"] = [condition_figures(*row, config, findings.stored) for row in rows]
    if findings.other_texts:
        figures["conditions"].append(condition_figures("right speaker, another text", findings.other_texts, config,
                                                       findings.stored))
    pooled = measures.pooled_costs(findings.conditions, calibration) if config.conditions and calibration else {}
    if pooled:
        figures["pooled"] = pooled
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


def check_request(config):
    """Raise InputError, before any work, where the flags ask for what cannot be done or written."""
    for mode in ("train", "verify", "export"):
        value = getattr(config, mode)
        if value:
            raise InputError(f"--{mode} is {value}: test.py only tests; python model.py --{mode} {value} does that")
    if config.conditions and "raw_path" not in config.given:
        raise InputError("--conditions is True: it needs audio, give --raw_path")
    if {"raw_path", "test_path"} <= config.given:
        raise InputError(f"--test_path is {config.test_path}: --raw_path names what is tested; give one of the two")
    if config.noise_raw_path and "conditions" not in config.given:
        raise InputError(f"--noise_raw_path is {config.noise_raw_path}: it serves --conditions True; give that, too")
    if config.snorm and not pathlib.Path(config.snorm).is_dir():
        raise InputError(f"--snorm is {config.snorm}: there is no such folder")
    measured = embedding.read_thresholds(config.model_path) if config.store_threshold else None
    if measured and "model_num" in config.given and measured["model_num"] != config.model_num:
        raise InputError(f"--model_num is {config.model_num}: {config.model_path} stores the thresholds of checkpoint "
                         f"{measured['model_num']}, which --store_threshold True would replace; leave --model_num out, "
                         "or export that checkpoint to a folder of its own with python model.py --export")
    if any(pathlib.Path(config.report_path).glob("*.npy")):
        raise InputError(f"--report_path is {config.report_path}: that holds features; name another folder")
    check_target("report_path", config.report_path, "evaluation.json")
    if config.store_threshold:
        check_target("model_path", config.model_path, "thresholds.json")
    if config.save_embeddings:
        check_target("save_embeddings", config.save_embeddings)
        if features.is_one_place(config.save_embeddings, config.report_path):
            raise InputError(f"--save_embeddings is {config.save_embeddings}: --report_path makes a folder of that "
                             "name; name another file")


def work(config):
    """Evaluate, write the report, store the thresholds where that is wanted, and print it all.

    All is written before a word is printed: whoever reads that, as `head`, may stop reading.
    """
    check_request(config)
    history = utils.History(pathlib.Path(config.model_path, "history.csv"), sys.maxsize).rows
    findings = score_trials(config) if config.trials else score_speakers(config)
    evaluation, scored = findings.evaluation, findings.scored
    figures = gather_figures(findings, config)
    written = report.write_report(config.report_path, figures, scored, evaluation, history)
    if config.save_embeddings:
        save_embeddings(config.save_embeddings, findings)
    stored = store_thresholds(config, findings) if config.store_threshold else []
    if evaluation:
        print(evaluation.describe())
    print(measures.describe_rates(scored.scores, scored.labels, embedding.decide(findings.stored, config, scored)))
    for table in report.tables(figures):
        print(report.text_table(*table))
    for note in findings.notes:
        print("note:", note)
    print("report:", ", ".join(map(str, written)))
    print(*stored, sep="\n", end="\n" * bool(stored))
    return 0


def store_thresholds(config, findings):
    """Store the measured thresholds with the model; return the lines that say so."""
    evaluation = findings.evaluation
    source = f"{len(evaluation.people)} test speakers, {config.utterance_number} enrolment utterances each"
    embedding.store_thresholds(config.model_path, config.model_num, evaluation, source, trials=findings.trials)
    points = embedding.load_thresholds(config.model_path, config.model_num)["points"]
    lines = [f"stored with {config.model_path}: {measures.describe_points(points)}"]
    if findings.stored and not findings.trials and "llr" in findings.stored["points"]["eer"]:
        lines.append("note: the thresholds before were ratios that know conditions, these are scores: "
                     "--conditions True stores such ratios")
    if evaluation.targets < report.FEWEST_TARGETS:
        lines.append(f"note: a threshold of {evaluation.targets} target trials is not trustworthy; use more speakers")
    return lines


def main(argv=None):
    """Run the command line; return the exit code."""
    return configuration.run(work, argv, "test", __doc__)


if __name__ == "__main__":
    sys.exit(main())
