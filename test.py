"""Evaluate a model: what a researcher reports of its scores, with intervals and pictures.

    python test.py --model_path ./model --test_path ./test_tisv
    python test.py --model_path ./model --raw_path DIR              audio instead of features
    python test.py --model_path ./model --raw_path DIR --trials LIST      a list of trials
    python test.py --store_threshold True                           store the measured thresholds with the model

Without a list each speaker enrols with --utterance_number utterances; all others are probes against every speaker.
Figures, pictures and all scores are written to --report_path.
"""
import pathlib
import re
import shlex
import sys

import numpy as np
import scipy
from matplotlib.figure import Figure
from sklearn.metrics import DetCurveDisplay

import configuration
import data_preprocess
import model
import utils
from configuration import InputError, write_json, write_whole

SCORED_AT_ONCE = 100_000     # trials
FEW_TARGETS = "   not trustworthy: fewer than 30 target trials"
NAMES = {"eer": "EER", **{f"min_dcf_{p}": f"minDCF({p})" for p in utils.P_TARGETS}, "auc": "AUC",
         **{f"frr_at_far_{bound}": f"FRR at FAR {bound:.1%}" for bound in utils.FALSE_ALARMS},
         **{f"act_dcf_{p}": f"actDCF({p})" for p in utils.P_TARGETS}, "cllr": "Cllr", "min_cllr": "min Cllr"}


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
        for key in {str(file), str(file.with_suffix("")), file.stem}:
            known.setdefault(key, []).append(folder / file)
    return {name: known[name][0] if len(known.get(name, ())) == 1 else None for name in names}


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
    utils.Scored
    notes : list of str

    Raises
    ------
    InputError
        If audio is missing or without speech, unless config.allow_missing is set.
    """
    trials = read_trials(config.trials)
    encoder, stored = model.open_model(config)
    paths = find_recordings(sorted({name for trial in trials for name in trial[:2]}), config.raw_path)
    heard = model.embed_files(encoder, [path for path in paths.values() if path], config)
    losses = [f"{name} is not in {config.raw_path}" for name, path in paths.items() if not path]
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
    return utils.Scored(list(enrolled), list(probes), cosines(vectors, enrolled, probes), np.array(labels),
                        *number_speakers(kept).T), notes


def cosines(vectors, enrolled, probes):
    """Return the scores (n,) of n pairs of names, given {name: d-vector (D,)}."""
    place = {name: number for number, name in enumerate(vectors)}
    matrix = np.stack(list(vectors.values()))                                   # (U, D)
    pairs = np.array([[place[name] for name in names] for names in (enrolled, probes)])
    parts = np.array_split(pairs, -(-len(enrolled) // SCORED_AT_ONCE), axis=1)
    return np.concatenate([np.einsum("nd,nd->n", matrix[part[0]], matrix[part[1]]) for part in parts]).astype(float)


# ---- the report -------------------------------------------------------------------------------------------------

def write_report(config, scored, figures, evaluation=None, notes=()):
    """Write evaluation.json, scores.txt and the pictures to config.report_path; return their paths.

    `figures` is what Scored.measured returns; `evaluation` adds what the enrolment protocol knows.
    """
    folder, report = pathlib.Path(config.report_path), protocol(evaluation) if evaluation else {}
    write_json(folder / "evaluation.json", {
        "eer": figures["eer"]["value"], "points": utils.operating_points(scored.scores, scored.labels),
        "measures": finite(figures), "target_trials": int(scored.labels.sum()),
        "non_target_trials": int((~scored.labels).sum()), **report, "notes": list(notes),
        "model": str(config.model_path), "model_num": config.model_num, "command": shlex.join(sys.argv),
        "versions": model.versions()})
    labels = np.where(scored.labels, "target", "nontarget")
    trials = zip(scored.scores, labels, scored.enrolled, scored.probes, strict=True)
    lines = (f"{score:.6f} {label} {enrolled} {probe}\n".encode() for score, label, enrolled, probe in trials)
    write_whole(folder / "scores.txt", lambda file: file.writelines(lines))
    save_picture(det_curve(scored.scores, scored.labels), folder / "det.png")
    if evaluation:
        save_picture(heat_map(evaluation), folder / "similarity.png")
    names = ("evaluation.json", "scores.txt", "det.png", *(["similarity.png"] if evaluation else []))
    return [folder / name for name in names]


def finite(figures):
    """Return measures with None for what is infinite, as Cllr is where a target probe without speech is scored."""
    return {name: {key: value if value is None or np.isfinite(value) else None for key, value in entry.items()}
            for name, entry in figures.items()}


def protocol(evaluation):
    """Return what the report holds of the enrolment protocol."""
    similarity = evaluation.matrix()
    return {"speakers": evaluation.speakers, "enrolment_utterances": evaluation.enrolment_utterances,
            "probes": len(evaluation.probes), "probes_without_speech": evaluation.without_speech,
            "similarity": np.where(np.isfinite(similarity), similarity, None).tolist(),    # None: no speech
            "embedding_times_real_time": evaluation.embedded_seconds / evaluation.elapsed_seconds}


def table(figures, n_targets):
    """Return the measures with their 95 % intervals as lines."""
    lines = []
    for name, label in NAMES.items():
        entry = figures.get(name)
        if entry is None:
            continue
        values = [entry[key] for key in ("value", "low", "high")]
        text = "not measurable on so few non-target trials"
        if values[0] is not None:
            text = "{:8.4f}   95 % interval {:.4f} to {:.4f}".format(*values)
        lines.append(f"{label:18} {text}{FEW_TARGETS if n_targets < 30 else ''}")
    return "\n".join(lines + ([] if "cllr" in figures else ["not calibrated"]))


def det_curve(scores, labels):
    """Draw FRR over FAR on normal-deviate axes, with the EER marked; return the figure."""
    thresholds, far, frr = utils.error_rates(scores, labels)
    best = utils.equal(far, frr)
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    inside = (far > 0) & (frr > 0) & (far < 1) & (frr < 1)     # the ends lie at infinity on these axes
    DetCurveDisplay(fpr=far[inside], fnr=frr[inside]).plot(ax=axes)
    if inside[best]:
        corner = DetCurveDisplay(fpr=far[[best]], fnr=frr[[best]])
        corner.plot(ax=axes, marker="o", linestyle="", color="tab:red",
                    label=f"EER {(far[best] + frr[best]) / 2:.1%} at threshold {thresholds[best]:.3f}")
    axes.set(xlabel="false acceptance rate", ylabel="false rejection rate",
             title=f"DET, {np.sum(labels)} target and {np.sum(~labels)} non-target trials")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper right")
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
    for mode in ("train", "verify"):
        if getattr(config, mode):
            raise InputError(f"--{mode} is True: test.py only tests; python model.py --{mode} True does that")
    model.use_cores()
    if config.trials:
        evaluation, (scored, notes) = None, score_trials(config)
    else:
        evaluation = model.test(config)
        scored, notes = evaluation.scored(), evaluation.notes
        print(evaluation.describe())
    stored = model.load_thresholds(config.model_path, config.model_num)
    print(utils.describe_rates(scored.scores, scored.labels, stored))
    figures = scored.measured((stored or {}).get("calibration"), config.seed)
    print(table(figures, scored.labels.sum()))
    for note in notes:
        print("note:", note)
    print("report:", ", ".join(map(str, write_report(config, scored, figures, evaluation, notes))))
    if config.store_threshold:
        source = f"{len(evaluation.speakers)} test speakers"
        model.store_thresholds(config.model_path, config.model_num, evaluation, source)
        print(f"stored with {config.model_path}: {utils.describe_points(evaluation.points)}")
    return 0


def main(argv=None):
    """Run the command line; return the exit code."""
    return configuration.run(work, argv)


if __name__ == "__main__":
    sys.exit(main())
