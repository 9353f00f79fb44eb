"""What an evaluation shows: tables in text, pictures, one web page.

    report.write_report(folder, figures, scored, evaluation, history)

Figures are the dict that evaluation.json holds; matplotlib and scikit-learn load when a picture is drawn.
"""
import base64
import html
import pathlib

import numpy as np

import measures
from common import write_json, write_whole

FEWEST_TARGETS = 30          # with fewer target trials, figures are not trustworthy
FEWEST_BARS = 8              # conditions from which on they are drawn
FEW_TARGETS = f"not trustworthy: fewer than {FEWEST_TARGETS} target trials"
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Speaker verification</title><style>
body {{ font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #1b2430 }}
table {{ border-collapse: collapse }} td, th {{ padding: .2em .8em; text-align: right; border-bottom: 1px solid #ddd }}
td:first-child {{ text-align: left }} img {{ width: 49%; vertical-align: top }} code {{ word-break: break-all }}
</style></head><body>
{}
</body></html>
"""
NAMES = {"eer": "EER", **{f"min_dcf_{p}": f"minDCF({p})" for p in measures.P_TARGETS}, "auc": "AUC",
         **{f"frr_at_far_{bound}": f"FRR at FAR {bound:.1%}" for bound in measures.FALSE_ALARMS},
         "eer_llr": "EER of ratios", **{f"act_dcf_{p}": f"actDCF({p})" for p in measures.P_TARGETS}, "cllr": "Cllr",
         "min_cllr": "min Cllr"}


# ---- tables -----------------------------------------------------------------------------------------------------

def without_infinities(figures):
    """Return measures with None for what is infinite, as Cllr is where a target probe without speech is scored."""
    return {name: {key: value if value is None or np.isfinite(value) else None for key, value in entry.items()}
            for name, entry in figures.items()}


def tables(figures):
    """Return the tables of a run as (heading, column names, rows of texts)."""
    few = FEW_TARGETS if figures["target_trials"] < FEWEST_TARGETS else ""
    rows = [(NAMES[name], *(figure_text(entry[key]) for key in ("value", "low", "high")), few)
            for name, entry in figures["measures"].items()]
    if "cllr" not in figures["measures"]:
        rows.append(("not calibrated", "", "", "", ""))
    found = [("Measures", ("", "value", "95 % from", "to", ""), rows)]
    if "snorm" in figures:
        norm = figures["snorm"]
        heading = f"s-norm with {norm['cohort']}, its {norm['highest']} likest of {norm['speakers']} speakers"
        found.append((heading, ("", "before", "after"), [
            (NAMES[name], figure_text(figures["measures"][name]["value"]), figure_text(value))
            for name, value in norm["measures"].items()]))
    if "conditions" in figures:
        shown = {"eer": "EER", "eer_llr": "EER of ratios", "min_dcf": f"minDCF({measures.P_TARGETS[0]})", "far": "FAR",
                 "frr": "FRR"}
        if "cllr" not in figures["measures"]:
            del shown["eer_llr"]
        found.append(("Conditions" + (f", FAR and FRR at the {figures['decided']}" if figures["decided"] else ""),
                      ("", "probes", *shown.values(), ""),
                      [(row["condition"], str(row["probes"]), *(interval_text(row[name]) for name in shown),
                        FEW_TARGETS if row["probes"] < FEWEST_TARGETS else "") for row in figures["conditions"]]))
    if "pooled" in figures:
        found.append(("All conditions together, probes with speech", ("", "value"), [
            (NAMES[name], figure_text(value)) for name, value in figures["pooled"].items()]))
    if "worst_speakers" in figures:
        found += [("Worst speakers at the threshold of the EER", ("", "own rejected", "others accepted", "most like"), [
                      (row["speaker"], figure_text(row["rejected"]), figure_text(row["accepted"]), row["confused_with"])
                      for row in figures["worst_speakers"]])]
    return found


def figure_text(value):
    """Return a figure as text."""
    return "not measurable" if value is None else f"{value:.4f}"


def interval_text(figure):
    """Return a figure, a dict of value, low and high, as text."""
    if not figure:
        return "not measurable"
    interval = "" if figure["low"] is None else f" ({figure['low']:.3f} to {figure['high']:.3f})"
    return f"{figure['value']:.4f}{interval}"


def text_table(heading, columns, rows):
    """Return a table as lines of text."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    lines = ["  ".join(f"{text:<{width}}" if place == 0 else f"{text:>{width}}"
                       for place, (text, width) in enumerate(zip(row, widths, strict=True))).rstrip()
             for row in (columns, *rows)]
    return "\n".join(["", heading, *lines])


# ---- the page ---------------------------------------------------------------------------------------------------

def write_report(folder, figures, scored, evaluation=None, history=()):
    """Write evaluation.json, report.html, scores.txt and the pictures.

    Parameters
    ----------
    folder : str or Path
    figures : dict
    scored : measures.Scored
    evaluation : protocol.Evaluation, optional
        Of the enrolment protocol; a list of trials has none.
    history : sequence of dict, optional
        The rows of the model's history.csv.

    Returns
    -------
    list of Path
        Of the page, the figures and the scores.
    """
    folder = pathlib.Path(folder)
    write_json(folder / "evaluation.json", figures)
    labels = np.where(scored.labels, "target", "nontarget")
    trials = zip(scored.scores, labels, scored.enrolled, scored.probes, strict=True)
    lines = ("\t".join([f"{score:.6f}", *(word.replace("\t", " ") for word in words)]) for score, *words in trials)
    write_whole(folder / "scores.txt", lambda file: file.writelines(f"{line}\n".encode() for line in lines))
    pictures = {"det": det_curve(scored.scores, scored.labels),
                "scores": histogram(scored.scores, scored.labels, figures["points"]["eer"]["threshold"]),
                "map": embedding_map(scored)}
    if evaluation:
        pictures["similarity"] = heat_map(evaluation)
    if len(figures.get("conditions", ())) > FEWEST_BARS:
        pictures["conditions"] = condition_bars(figures["conditions"])
    if history:
        pictures["training"] = training_curve(history)
    for name, figure in pictures.items():
        save_picture(figure, folder / f"{name}.png")
    for name in {"similarity", "training", "conditions"} - pictures.keys():
        (folder / f"{name}.png").unlink(missing_ok=True)             # of an earlier report
    page = web_page(figures, [folder / f"{name}.png" for name in pictures])
    write_whole(folder / "report.html", lambda file: file.write(page.encode()))
    return [folder / name for name in ("report.html", "evaluation.json", "scores.txt")]


def web_page(figures, pictures):
    """Return the report as one HTML page that holds its pictures, the paths of PNG files."""
    parts = [f"<h1>Speaker verification: EER {figures['eer']:.2%}</h1>",
             f"<p>{figures['target_trials']} target and {figures['non_target_trials']} non-target trials; model "
             f"{html.escape(figures['model'])}, checkpoint {figures['model_num']}</p>"]
    parts += [f"<p>Note: {html.escape(note)}</p>" for note in figures["notes"]]
    first, *others = [web_table(*table) for table in tables(figures)]
    images = [f'<img alt="{path.stem}" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'
              for path in pictures]
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    parts += [first, f"<p>{''.join(images)}</p>", *others,
              f"<p><code>{html.escape(figures['command'])}</code><br>model {figures['model_sha256']}<br>data "
              f"{figures['data_sha256']}<br>{html.escape(versions)}</p>"]
    return PAGE.format("\n".join(parts))


def web_table(heading, columns, rows):
    """Return a table of texts in HTML."""
    cells = ["".join(f"<td>{html.escape(text)}</td>" for text in row) for row in rows]
    head = "".join(f"<th>{html.escape(text)}</th>" for text in columns)
    return f"<h2>{html.escape(heading)}</h2><table><tr>{head}</tr><tr>{'</tr><tr>'.join(cells)}</tr></table>"


# ---- pictures ---------------------------------------------------------------------------------------------------

def det_curve(scores, labels):
    """Draw FRR over FAR on normal-deviate axes, with the points of the EER and the least costs; return the figure."""
    from matplotlib.figure import Figure
    from sklearn.metrics import DetCurveDisplay

    thresholds, far, frr = measures.error_rates(scores, labels)
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    inside = (far > 0) & (frr > 0) & (far < 1) & (frr < 1)     # the ends lie at infinity on these axes
    DetCurveDisplay(fpr=far[inside], fnr=frr[inside]).plot(ax=axes)
    best = measures.equal_error_index(far, frr)
    points = [(best, "o", f"EER {(far[best] + frr[best]) / 2:.1%} at threshold {thresholds[best]:.3f}")]
    points += [(int(np.argmin(p * frr + (1 - p) * far)), marker, f"minDCF({p}) {measures.min_dcf(far, frr, p):.3f}")
               for p, marker in zip(measures.P_TARGETS, "s^", strict=True)]
    for index, marker, label in points:
        if inside[index]:
            DetCurveDisplay(fpr=far[[index]], fnr=frr[[index]]).plot(ax=axes, marker=marker, linestyle="", label=label)
    if not inside.any():
        axes.text(0.5, 0.5, "no threshold errs in both ways", transform=axes.transAxes, ha="center")
    axes.set(xlabel="false acceptance rate", ylabel="false rejection rate",
             title=f"DET, {np.sum(labels)} target and {np.sum(~labels)} non-target trials")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper right")
    return figure


def histogram(scores, labels, threshold):
    """Draw the densities of target and non-target scores, with the threshold of the EER; return the figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes, heard = figure.add_subplot(), np.isfinite(scores)
    edges = np.linspace(min(-1, scores[heard].min(initial=0)), max(1, scores[heard].max(initial=0)), 81)
    for kind, label, colour in ((labels, "target", "tab:green"), (~labels, "non-target", "tab:red")):
        axes.hist(scores[heard & kind], edges, density=True, alpha=0.6, color=colour, label=f"{label} trials")
    axes.axvline(threshold, color="black", linewidth=1, label=f"threshold of the EER, {threshold:.3f}")
    axes.set(xlabel="score", ylabel="density", title="Scores")
    axes.legend()
    return figure


def embedding_map(scored):
    """Draw the first two principal components of the d-vectors, coloured by speaker; return the figure."""
    from matplotlib.figure import Figure
    from sklearn.decomposition import PCA

    owners = dict(zip(scored.enrolled, scored.enrolled_speakers.tolist(), strict=True))
    owners.update(zip(scored.probes, scored.probe_speakers.tolist(), strict=True))
    names = [name for name, vector in scored.vectors.items() if name in owners and np.isfinite(vector).all()]
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes, pca = figure.add_subplot(), PCA(min(2, len(names)))
    points = pca.fit_transform(np.stack([scored.vectors[name] for name in names]))
    for marker, size, shown in ((".", 40, set(scored.probes)), ("x", 30, set(scored.enrolled))):
        places = [place for place, name in enumerate(names) if name in shown]
        axes.scatter(points[places, 0], points[places, -1], s=size, c=[owners[names[place]] for place in places],
                     cmap="hsv", vmin=0, vmax=max(owners.values()) + 1, marker=marker, alpha=0.7)   # hsv is a circle
    shares = pca.explained_variance_ratio_
    axes.set(xlabel=f"first component ({shares[0]:.0%})", ylabel=f"second component ({shares[-1]:.0%})",
             title="d-vectors of probes (points) and enrolments (crosses) by speaker")
    return figure


def training_curve(rows):
    """Draw loss and validation EER over the iterations of history.csv; return the figure."""
    from matplotlib.figure import Figure

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
    from matplotlib.figure import Figure

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


def condition_bars(rows):
    """Draw EER, FAR and FRR of the rows of the table by condition as bars on one scale; return the figure."""
    from matplotlib.figure import Figure

    rows = [row for row in rows if row["eer"]]
    figure = Figure(figsize=(8, 1.2 + 0.42 * len(rows)), layout="constrained")
    axes, places = figure.add_subplot(), np.arange(len(rows))
    kinds = (("eer", "EER", "tab:blue"), ("far", "FAR at the threshold", "tab:red"),
             ("frr", "FRR at the threshold", "tab:orange"))
    for number, (name, label, colour) in enumerate(kinds):
        shown = [(place, row[name]) for place, row in zip(places, rows, strict=True) if row[name]]
        if not shown:
            continue
        heights, values = [place + 0.27 * (number - 1) for place, _ in shown], [100 * row["value"] for _, row in shown]
        axes.barh(heights, values, 0.27, color=colour, label=label)
        bounds = [(row["value"] if row["low"] is None else row["low"], row["high"] or 0) for _, row in shown]
        reach = [(max(0, value - 100 * low), max(0, 100 * high - value))            # nothing, of too few speakers
                 for value, (low, high) in zip(values, bounds, strict=True)]
        axes.errorbar(values, heights, xerr=np.transpose(reach), fmt="none", ecolor="0.3", elinewidth=0.8)
    axes.set_yticks(places, [f"{row['condition']} ({row['probes']})" for row in rows])
    axes.set(xlabel="per cent of the trials of their kind, with 95 % intervals", title="By condition (probes)",
             xlim=(0, None))
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.legend()
    return figure


def save_picture(figure, path):
    """Write a figure as PNG, whole or not at all."""
    write_whole(path, lambda file: figure.savefig(file, format="png", dpi=120))
