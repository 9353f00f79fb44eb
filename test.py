"""Evaluate a model: the equal error rate of enrolled speakers against the probes of all, and its pictures.

    python test.py --model_path ./model --test_path ./test_tisv
    python test.py --model_path ./model --raw_path DIR              audio instead of features
    python test.py --store_threshold True                           store the measured thresholds with the model

Each speaker enrols with --utterance_number utterances; all others are probes against every speaker. Figures and
pictures are written to --report_path.
"""
import pathlib
import shlex
import sys

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import DetCurveDisplay

import configuration
import model
import utils
from configuration import InputError, write_json, write_whole


def write_report(evaluation, config):
    """Write evaluation.json, det.png and similarity.png to config.report_path; return their paths."""
    folder = pathlib.Path(config.report_path)
    similarity = evaluation.matrix()
    write_json(folder / "evaluation.json", {
        "eer": evaluation.eer, "points": evaluation.points, "speakers": evaluation.speakers,
        "enrolment_utterances": evaluation.enrolment_utterances, "probes": len(evaluation.probes),
        "probes_without_speech": evaluation.without_speech, "target_trials": evaluation.targets,
        "non_target_trials": evaluation.labels.size - evaluation.targets,
        "similarity": np.where(np.isfinite(similarity), similarity, None).tolist(),    # None: a probe without speech
        "embedding_times_real_time": evaluation.embedded_seconds / evaluation.elapsed_seconds,
        "notes": evaluation.notes, "model": str(config.model_path), "model_num": config.model_num,
        "command": shlex.join(sys.argv), "versions": model.versions()})
    save_picture(det_curve(evaluation), folder / "det.png")
    save_picture(heat_map(evaluation), folder / "similarity.png")
    return [folder / name for name in ("evaluation.json", "det.png", "similarity.png")]


def det_curve(evaluation):
    """Draw FRR over FAR on normal-deviate axes, with the EER marked; return the figure."""
    _, far, frr = utils.error_rates(evaluation.scores, evaluation.labels)
    point = evaluation.points["eer"]
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    inside = (far > 0) & (frr > 0) & (far < 1) & (frr < 1)     # the ends lie at infinity on these axes
    DetCurveDisplay(fpr=far[inside], fnr=frr[inside]).plot(ax=axes)
    if 0 < point["far"] < 1 and 0 < point["frr"] < 1:
        corner = DetCurveDisplay(fpr=np.array([point["far"]]), fnr=np.array([point["frr"]]))
        corner.plot(ax=axes, marker="o", linestyle="", color="tab:red",
                    label=f"EER {evaluation.eer:.1%} at threshold {point['threshold']:.3f}")
    axes.set(xlabel="false acceptance rate", ylabel="false rejection rate",
             title=f"DET, {len(evaluation.speakers)} speakers, {len(evaluation.probes)} probes")
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
    evaluation = model.test(config)
    print(evaluation.describe(model.load_thresholds(config.model_path, config.model_num)))
    print("report:", ", ".join(map(str, write_report(evaluation, config))))
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
