"""Evaluate a model: what a researcher reports of its scores, with intervals and pictures.

    python test.py --model_path ./model --test_path ./test_tisv
    python test.py --model_path ./model --raw_path DIR              audio instead of features
    python test.py --model_path ./model --raw_path DIR --trials LIST      a list of trials
    python test.py --store_threshold True                           store the measured thresholds with the model

Without a list each speaker enrols with --utterance_number utterances; all others are probes against every speaker.
Figures, pictures and all scores are written to --report_path.
"""
import base64
import hashlib
import html
import pathlib
import re
import shlex
import sys
from dataclasses import dataclass, field

import numpy as np
import scipy
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.metrics import DetCurveDisplay

import configuration
import data_preprocess
import model
import utils
from configuration import InputError, write_json, write_whole

SCORED_AT_ONCE = 100_000     # trials
PROBE_SECONDS = (1, 2, 5)    # of speech, in the table by condition
ENROLMENTS = (1, 3, 5)       # enrolment utterances, in the table by condition
ENDINGS = tuple(data_preprocess.SUFFIXES)
COHORT = 200                 # highest scores against the cohort, in adaptive s-norm
FEWEST_TARGETS = 30          # with fewer target trials, figures are not trustworthy
FEW_TARGETS = "not trustworthy: fewer than 30 target trials"
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Speaker verification</title><style>
body {{ font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #1b2430 }}
table {{ border-collapse: collapse }} td, th {{ padding: .2em .8em; text-align: right; border-bottom: 1px solid #ddd }}
td:first-child {{ text-align: left }} img {{ max-width: 100%; margin: 1em 0 }} code {{ word-break: break-all }}
</style></head><body>
{}
</body></html>
"""
NAMES = {"eer": "EER", **{f"min_dcf_{p}": f"minDCF({p})" for p in utils.P_TARGETS}, "auc": "AUC",
         **{f"frr_at_far_{bound}": f"FRR at FAR {bound:.1%}" for bound in utils.FALSE_ALARMS},
         **{f"act_dcf_{p}": f"actDCF({p})" for p in utils.P_TARGETS}, "cllr": "Cllr", "min_cllr": "min Cllr"}


@dataclass
class Findings:
    """What was scored, and what the report needs to know of it."""

    encoder: model.Encoder
    scored: utils.Scored
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
    for file in map(pathlib.PurePosixPath, data_preprocess.audio_files(folder)[0]):
        for key in {str(file), str(file.with_suffix("")), file.name, file.stem}:
            known.setdefault(key, []).append(folder / file)
    found = {}
    for name in names:
        other_suffix = str(pathlib.PurePosixPath(name).with_suffix("")) if name.lower().endswith(ENDINGS) else name
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
    encoder, stored = model.open_model(config)
    paths = find_recordings(sorted({name for trial in trials for name in trial[:2]}), config.raw_path)
    heard = model.embed_files(encoder, [path for path in paths.values() if path], config)
    losses = [f"{name} is not in {config.raw_path}, or more than once" for name, path in paths.items() if not path]
    losses += [f"{name} {heard[path][2]}" for name, path in paths.items() if path and heard[path][0] is None]
    vectors = {name: heard[path][0] for name, path in paths.items() if path and heard[path][0] is not None}
    kept = [trial for trial in trials if trial[0] in vectors and trial[1] in vectors]
    data_preprocess.report_losses(losses)
    left_out = f"{len(losses)} of its {len(paths)} recordings are missing or hold no speech"
    if len(kept) < len(trials) and not config.allow_missing:
        raise InputError(f"--trials is {config.trials}: {left_out}, which {len(trials) - len(kept)} of {len(trials)} "
                         "trials need; complete them, or give --allow_missing True to leave those out")
    if not kept:
        raise InputError(f"--trials is {config.trials}: {left_out}, and no trial is left")
    notes = model.model_notes(config, stored)
    if len(kept) < len(trials):
        notes.append(f"{len(trials) - len(kept)} of {len(trials)} trials are left out: {left_out}")
    enrolled, probes, labels = zip(*kept, strict=True)
    scored = utils.Scored(list(enrolled), list(probes), cosines(vectors, enrolled, probes), np.array(labels),
                          *number_speakers(kept).T, vectors)
    seconds = {name: heard[path][1] for name, path in paths.items() if name in vectors}
    return Findings(encoder, scored, seconds, [path for path in paths.values() if path], notes)


def cosines(vectors, enrolled, probes):
    """Return the scores (n,) of n pairs of names, given {name: d-vector (D,)}."""
    place = {name: number for number, name in enumerate(vectors)}
    matrix = np.stack(list(vectors.values()))                                   # (U, D)
    pairs = np.array([[place[name] for name in names] for names in (enrolled, probes)])
    parts = np.array_split(pairs, -(-len(enrolled) // SCORED_AT_ONCE), axis=1)
    return np.concatenate([np.einsum("nd,nd->n", matrix[part[0]], matrix[part[1]]) for part in parts]).astype(float)


# ---- the enrolment protocol -------------------------------------------------------------------------------------

def score_speakers(config):
    """Enrol each test speaker and score all other utterances against all; return Findings. As model.test."""
    encoder, speakers, notes = model.open_test(config)
    evaluation = model.evaluate(encoder, speakers, config.utterance_number)
    seconds = {}
    for speaker in speakers:
        enrolment, _ = utils.enrol_and_probe(speaker, config.utterance_number)
        seconds[speaker.name] = sum(utterance.speech_seconds for utterance in enrolment)
        seconds.update({f"{speaker.name}/{utterance.file}": utterance.speech_seconds for utterance in speaker.voiced})
    conditions = by_probe_seconds(encoder, speakers, evaluation, config) + by_enrolment(evaluation)
    return Findings(encoder, evaluation.scored(), seconds, [speaker.path for speaker in speakers],
                    evaluation.notes + notes, evaluation, conditions)


def by_probe_seconds(encoder, speakers, evaluation, config):
    """Return rows of the EER over the seconds of probe speech: (condition, probes, EER or None)."""
    rows = []
    for seconds in PROBE_SECONDS:
        vectors = model.shortened(encoder, speakers, evaluation, seconds, config)
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
    return utils.equal_error_rate(scores, labels)[0] if labels.any() and not labels.all() else None


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


def cohort(encoder, folder, config):
    """Return the names of the speakers of a feature folder, their d-vectors (C, D), and notes on the features.

    A speaker's d-vector is the normalised mean of those of its utterances.
    """
    speakers, settings = utils.load_features(folder)
    notes = utils.check_features(speakers, settings, data_preprocess.feature_settings(config), folder)
    names = [speaker.name for speaker in speakers]
    speakers = configuration.progress(speakers, desc=f"cohort {folder}", unit="speaker")
    vectors = [utils.unit_mean(list(model.embed_speaker(encoder, speaker).values())) for speaker in speakers]
    return names, np.stack(vectors), notes


# ---- the report -------------------------------------------------------------------------------------------------

def gather(findings, config):
    """Return all figures of a run, a dict of plain values, for evaluation.json and report.html."""
    scored, stored = findings.scored, model.load_thresholds(config.model_path, config.model_num)
    figures = {"measures": finite(scored.measured((stored or {}).get("calibration"), config.seed)),
               "points": utils.operating_points(scored.scores, scored.labels),
               "target_trials": int(scored.labels.sum()), "non_target_trials": int((~scored.labels).sum())}
    figures["eer"] = figures["measures"]["eer"]["value"]
    if config.snorm:
        names, others, notes = cohort(findings.encoder, config.snorm, config)
        findings.notes.extend(notes)
        both = set(findings.scored.enrolled) & set(names)
        if both:
            findings.notes.append(f"{len(both)} speakers of --snorm {config.snorm} carry names of test speakers: a "
                                  "cohort must be of others")
        after = utils.measures(utils.Trials(scored.normalised(others, COHORT), scored.labels))
        figures["snorm"] = {"cohort": str(config.snorm), "speakers": len(others),
                            "highest": min(COHORT, len(others)), "measures": after}
    if findings.evaluation:
        names = findings.evaluation.speakers
        rows = worst_speakers(scored, names, figures["points"]["eer"]["threshold"])
        figures |= protocol(findings.evaluation) | {
            "conditions": [dict(zip(("condition", "probes", "eer"), row, strict=True)) for row in findings.conditions],
            "worst_speakers": [dict(zip(("speaker", "rejected", "accepted", "confused_with"), row, strict=True))
                               for row in rows]}
    return figures | {
        "notes": findings.notes, "model": str(config.model_path), "model_num": config.model_num,
        "model_sha256": fingerprint(variable.numpy().tobytes() for variable in findings.encoder.variables),
        "data_sha256": fingerprint(path.read_bytes() for path in findings.sources),
        "command": shlex.join(sys.argv), "versions": model.versions()}


def protocol(evaluation):
    """Return what the report holds of the enrolment protocol."""
    similarity = evaluation.matrix()
    return {"speakers": evaluation.speakers, "enrolment_utterances": evaluation.enrolment_utterances,
            "probes": len(evaluation.probes), "probes_without_speech": evaluation.without_speech,
            "similarity": np.where(np.isfinite(similarity), similarity, None).tolist(),    # None: no speech
            "embedding_times_real_time": evaluation.embedded_seconds / evaluation.elapsed_seconds}


def finite(measures):
    """Return measures with None for what is infinite, as Cllr is where a target probe without speech is scored."""
    return {name: {key: value if value is None or np.isfinite(value) else None for key, value in entry.items()}
            for name, entry in measures.items()}


def fingerprint(parts):
    """Return the SHA-256 of parts, an iterable of bytes."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()


def tables(figures):
    """Return the tables of a run as (heading, column names, rows of texts)."""
    few = FEW_TARGETS if figures["target_trials"] < FEWEST_TARGETS else ""
    rows = [(NAMES[name], *(number(entry[key]) for key in ("value", "low", "high")), few)
            for name, entry in figures["measures"].items()]
    if "cllr" not in figures["measures"]:
        rows.append(("not calibrated", "", "", "", ""))
    found = [("Measures", ("", "value", "95 % from", "to", ""), rows)]
    if "snorm" in figures:
        after = figures["snorm"]["measures"]
        found.append((f"Adaptive s-norm with {figures['snorm']['cohort']}", ("", "before", "after"), [
            (NAMES[name], number(figures["measures"][name]["value"]), number(value)) for name, value in after.items()]))
    if "conditions" in figures:
        found += [("Conditions", ("", "probes", "EER"), [(row["condition"], str(row["probes"]), number(row["eer"]))
                                                         for row in figures["conditions"]]),
                  ("Worst speakers", ("", "own rejected", "others accepted", "most like"), [
                      (row["speaker"], number(row["rejected"]), number(row["accepted"]), row["confused_with"])
                      for row in figures["worst_speakers"]])]
    return found


def number(value):
    """Return a figure as text."""
    return "not measurable" if value is None else f"{value:.4f}"


def text_table(heading, columns, rows):
    """Return a table as lines of text."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    lines = ["  ".join(f"{text:<{width}}" if place == 0 else f"{text:>{width}}"
                       for place, (text, width) in enumerate(zip(row, widths, strict=True))).rstrip()
             for row in (columns, *rows)]
    return "\n".join(["", heading, *lines])


def write_report(findings, figures, config):
    """Write evaluation.json, report.html, scores.txt and the pictures to config.report_path; return their paths."""
    folder, scored = pathlib.Path(config.report_path), findings.scored
    write_json(folder / "evaluation.json", figures)
    labels = np.where(scored.labels, "target", "nontarget")
    trials = zip(scored.scores, labels, scored.enrolled, scored.probes, strict=True)
    lines = (f"{score:.6f} {label} {enrolled} {probe}\n".encode() for score, label, enrolled, probe in trials)
    write_whole(folder / "scores.txt", lambda file: file.writelines(lines))
    pictures = {"det": det_curve(scored.scores, scored.labels),
                "scores": histogram(scored.scores, scored.labels, figures["points"]["eer"]["threshold"]),
                "map": plane(scored)}
    if findings.evaluation:
        pictures["similarity"] = heat_map(findings.evaluation)
    history = pathlib.Path(config.model_path, "history.csv")
    if history.exists():
        pictures["training"] = training_curve(utils.History(history, sys.maxsize).rows)
    for name, figure in pictures.items():
        save_picture(figure, folder / f"{name}.png")
    for name in {"similarity", "training"} - pictures.keys():
        (folder / f"{name}.png").unlink(missing_ok=True)             # of an earlier report
    page = web_page(figures, [folder / f"{name}.png" for name in pictures])
    write_whole(folder / "report.html", lambda file: file.write(page.encode()))
    return [folder / name for name in ("report.html", "evaluation.json", "scores.txt")]


def web_page(figures, pictures):
    """Return the report as one HTML page that holds its pictures."""
    parts = [f"<h1>Speaker verification: EER {figures['eer']:.2%}</h1>",
             f"<p>{figures['target_trials']} target and {figures['non_target_trials']} non-target trials; model "
             f"{html.escape(figures['model'])}, checkpoint {figures['model_num']}</p>"]
    parts += [f"<p>Note: {html.escape(note)}</p>" for note in figures["notes"]]
    for heading, columns, rows in tables(figures):
        cells = ["".join(f"<td>{html.escape(text)}</td>" for text in row) for row in rows]
        head = "".join(f"<th>{html.escape(text)}</th>" for text in columns)
        parts.append(f"<h2>{html.escape(heading)}</h2><table><tr>{head}</tr><tr>{'</tr><tr>'.join(cells)}</tr></table>")
    parts += [f'<img alt="{path.stem}" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'
              for path in pictures]
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    parts.append(f"<p><code>{html.escape(figures['command'])}</code><br>model {figures['model_sha256']}<br>data "
                 f"{figures['data_sha256']}<br>{html.escape(versions)}</p>")
    return PAGE.format("\n".join(parts))


def save_embeddings(path, findings):
    """Write names, d-vectors (U, D) and seconds of speech of all that was embedded, as .npz."""
    names = sorted(name for name, vector in findings.scored.vectors.items() if np.isfinite(vector).all())
    write_whole(path, lambda file: np.savez(
        file, names=np.array(names), vectors=np.stack([findings.scored.vectors[name] for name in names]),
        seconds=np.array([findings.seconds[name] for name in names])))


# ---- pictures ---------------------------------------------------------------------------------------------------

def det_curve(scores, labels):
    """Draw FRR over FAR on normal-deviate axes, with the points of the EER and the least costs; return the figure."""
    thresholds, far, frr = utils.error_rates(scores, labels)
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    inside = (far > 0) & (frr > 0) & (far < 1) & (frr < 1)     # the ends lie at infinity on these axes
    DetCurveDisplay(fpr=far[inside], fnr=frr[inside]).plot(ax=axes)
    best = utils.equal(far, frr)
    points = [(best, "o", f"EER {(far[best] + frr[best]) / 2:.1%} at threshold {thresholds[best]:.3f}")]
    points += [(int(np.argmin(p * frr + (1 - p) * far)), marker, f"minDCF({p}) {utils.min_dcf(far, frr, p):.3f}")
               for p, marker in zip(utils.P_TARGETS, "s^", strict=True)]
    for index, marker, label in points:
        if inside[index]:
            DetCurveDisplay(fpr=far[[index]], fnr=frr[[index]]).plot(ax=axes, marker=marker, linestyle="", label=label)
    axes.set(xlabel="false acceptance rate", ylabel="false rejection rate",
             title=f"DET, {np.sum(labels)} target and {np.sum(~labels)} non-target trials")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper right")
    return figure


def histogram(scores, labels, threshold):
    """Draw the densities of target and non-target scores, with the threshold of the EER; return the figure."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes, heard = figure.add_subplot(), np.isfinite(scores)
    edges = np.linspace(min(-1, scores[heard].min(initial=0)), max(1, scores[heard].max(initial=0)), 81)
    for kind, label, colour in ((labels, "target", "tab:green"), (~labels, "non-target", "tab:red")):
        axes.hist(scores[heard & kind], edges, density=True, alpha=0.6, color=colour, label=f"{label} trials")
    axes.axvline(threshold, color="black", linewidth=1, label=f"threshold of the EER, {threshold:.3f}")
    axes.set(xlabel="score", ylabel="density", title="Scores")
    axes.legend()
    return figure


def plane(scored):
    """Draw the first two principal components of the d-vectors, coloured by speaker; return the figure."""
    owners = dict(zip(scored.enrolled, scored.enrolled_speakers.tolist(), strict=True))
    owners.update(zip(scored.probes, scored.probe_speakers.tolist(), strict=True))
    names = [name for name, vector in scored.vectors.items() if name in owners and np.isfinite(vector).all()]
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes, pca = figure.add_subplot(), PCA(min(2, len(names)))
    points = pca.fit_transform(np.stack([scored.vectors[name] for name in names]))
    axes.scatter(points[:, 0], points[:, -1], s=12, c=[owners[name] for name in names], cmap="hsv", alpha=0.7)
    shares = pca.explained_variance_ratio_
    axes.set(xlabel=f"first component ({shares[0]:.0%})", ylabel=f"second component ({shares[-1]:.0%})",
             title=f"d-vectors of {len(names)} recordings, a colour per speaker")
    return figure


def training_curve(rows):
    """Draw loss and validation EER over the iterations of history.csv; return the figure."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.semilogy([int(row["iteration"]) for row in rows], [float(row["loss"]) for row in rows], label="training loss")
    axes.set(xlabel="iteration", ylabel="loss of a batch", title="Training")
    validated = [row for row in rows if row["valid_eer"]]
    if validated:
        right = axes.twinx()
        right.plot([int(row["iteration"]) for row in validated], [float(row["valid_eer"]) for row in validated],
                   color="tab:red", marker=".", label="validation EER")
        right.set(ylabel="validation EER", ylim=(0, None))
    figure.legend(loc="outside upper right")
    return figure


def heat_map(evaluation):
    """Draw the mean score of each speaker's probes against each enrolled speaker; return the figure."""
    owners = np.array([name for name, _ in evaluation.probes])
    heard = np.where(np.isfinite(evaluation.scores), evaluation.scores, np.nan)
    means = np.stack([np.ma.masked_invalid(heard[owners == name]).mean(axis=0).filled(np.nan)
                      for name in evaluation.speakers])
    n = len(evaluation.speakers)
    size = min(16, max(5, 3 + 0.18 * n))
    figure = Figure(figsize=(1.15 * size, size), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(means, vmin=-1, vmax=1, cmap="RdBu_r")
    if n <= 60:
        axes.set_xticks(range(n), evaluation.speakers, rotation=90, fontsize=7)
        axes.set_yticks(range(n), evaluation.speakers, fontsize=7)
    axes.set(xlabel="enrolled speaker", ylabel="speaker of the probes", title="Mean cosine similarity")
    figure.colorbar(image, ax=axes, shrink=0.8, label="cosine")
    return figure


def save_picture(figure, path):
    """Write a figure as PNG, whole or not at all."""
    write_whole(path, lambda file: figure.savefig(file, format="png", dpi=120))


def work(config):
    """Evaluate, print, write the report, and store the thresholds where that is wanted."""
    for mode in ("train", "verify", "export"):
        value = getattr(config, mode)
        if value:
            raise InputError(f"--{mode} is {value}: test.py only tests; python model.py --{mode} {value} does that")
    model.use_cores()
    findings = score_trials(config) if config.trials else score_speakers(config)
    evaluation, scored = findings.evaluation, findings.scored
    if evaluation:
        print(evaluation.describe())
    stored = model.load_thresholds(config.model_path, config.model_num)
    print(utils.describe_rates(scored.scores, scored.labels, stored))
    figures = gather(findings, config)
    for table in tables(figures):
        print(text_table(*table))
    for note in findings.notes:
        print("note:", note)
    print("report:", ", ".join(map(str, write_report(findings, figures, config))))
    if config.save_embeddings:
        save_embeddings(config.save_embeddings, findings)
    if config.store_threshold:
        source = f"{len(evaluation.speakers)} test speakers, {config.utterance_number} enrolment utterances each"
        model.store_thresholds(config.model_path, config.model_num, evaluation, source)
        print(f"stored with {config.model_path}: {utils.describe_points(evaluation.points)}")
        if evaluation.targets < FEWEST_TARGETS:
            print(f"note: a threshold of {evaluation.targets} target trials is not trustworthy; use more speakers")
    return 0


def main(argv=None):
    """Run the command line; return the exit code."""
    return configuration.run(work, argv)


if __name__ == "__main__":
    sys.exit(main())
