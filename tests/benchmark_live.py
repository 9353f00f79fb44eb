"""A verdict while somebody speaks: what listening costs, how soon it is sure, who speaks now.

    python tests/benchmark_live.py [folder of corpora]

The folder, ../shared where none is given, holds corpus, commonvoice and an4, each with train/ and test/, a folder per
speaker. Bars: under 20 % of a core while listening; half the speech of the fixed length with the same FAR and FRR.

Each speaker enrols with 5 utterances (Common Voice: 4), the others are joined and cut into probes of up to 10 s, each
a trial against every speaker of its corpus. A fixed length has its verdict at the first look with so much speech; where
the recording has less, at its end. The FRR "at that FAR" is that of the threshold which gives a fixed length the FAR of
the sequential test, whatever the model stores. LEAD was chosen on the model's validation speakers.
"""
import pathlib
import sys
import time
from dataclasses import dataclass, replace

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import audio
import configuration
import embedding
import verification

CORPORA = {"corpus": 5, "commonvoice": 4, "an4": 5}         # utterances that enrol
PROBE_SECONDS = 10
LENGTHS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 10.0)        # seconds of speech
BLOCK_SECONDS = 0.05


@dataclass(frozen=True)
class Trial:
    """A probe against one enrolled speaker at L looks."""

    target: bool
    seconds: np.ndarray         # (L,) of speech
    ratios: np.ndarray          # (L,)
    sure: np.ndarray            # (L,)
    limit: float                # the threshold, a ratio


# ---- data -------------------------------------------------------------------------------------------------------

def speaker_folders(shared, validation):
    """Return {corpus: folders of its test speakers, or of those that the model was validated on}."""
    names = embedding.load_config(ROOT / "pretrained")["validation"]
    found = {corpus: sorted(shared.glob(f"{corpus}/{'train' if validation else 'test'}/*")) for corpus in CORPORA}
    return {corpus: [path for path in paths if not validation or path.name in names]
            for corpus, paths in found.items()}


def enrol_and_join(verifier, folders, m):
    """Return the Voices of speakers, and their probes, pairs of a name and samples (S,) of up to 10 s."""
    voices, probes, sr = [], [], verifier.config.sr
    for folder in folders:
        files = [folder / file for file in audio.audio_files(folder)[0]]
        own = min(m, len(files) - 1)
        voices.append(verifier.embed_voice(folder.name, [part for file in files[:own] for part in verifier.read(file)]))
        wave = np.concatenate([audio.load_audio(file, sr) for file in files[own:]])
        parts = [wave[start:start + PROBE_SECONDS * sr] for start in range(0, len(wave), PROBE_SECONDS * sr)]
        probes += [(folder.name, part) for part in parts if len(part) >= PROBE_SECONDS * sr / 2 or len(parts) == 1]
    return voices, probes


def blocks_of(wave, sr):
    """Return samples (S,) in blocks as a microphone delivers them."""
    return np.split(wave, range(round(BLOCK_SECONDS * sr), len(wave), round(BLOCK_SECONDS * sr)))


def looks_at(verifier, voices, wave):
    """Return the Verdicts on a probe while it comes, and in the end; those without speech are left out."""
    listener = verification.Listener(verifier, voices)
    found = [listener.feed(block) for block in blocks_of(wave, verifier.config.sr)]
    return [verdict for verdict in (*found, listener.finish()) if verdict and not verdict.problem]


# ---- sequential and fixed ---------------------------------------------------------------------------------------

def at_point(verdict, threshold):
    """Return a Verdict with another threshold, a ratio."""
    return replace(verdict, threshold=threshold)


def trial_of(looks, name, owner):
    """Return the Trial of a probe's looks against one of the speakers."""
    alone = [replace(look, speaker=name, llr=look.ratios[name], ratios={name: look.ratios[name]}) for look in looks]
    return Trial(name == owner, np.array([look.probe_seconds for look in alone]),
                 np.array([look.llr for look in alone]), np.array([look.sure for look in alone]),
                 alone[0].threshold.llr)


def rates(accepted, trials):
    """Return FAR and FRR."""
    targets = np.array([trial.target for trial in trials])
    return accepted[~targets].mean(), 1 - accepted[targets].mean()


def sequential(trials):
    """Return FAR, FRR, and the mean seconds of speech to the verdict of target and of non-target trials."""
    ends = [int(np.argmax(trial.sure)) if trial.sure.any() else len(trial.sure) - 1 for trial in trials]
    accepted = np.array([trial.ratios[end] >= trial.limit for trial, end in zip(trials, ends, strict=True)])
    seconds = np.array([trial.seconds[end] for trial, end in zip(trials, ends, strict=True)])
    targets = np.array([trial.target for trial in trials])
    return *rates(accepted, trials), seconds[targets].mean(), seconds[~targets].mean()


def fixed(trials, length, far):
    """Return mean seconds, FAR and FRR of a fixed length at the stored threshold, and its FRR at a given FAR."""
    ends = [int(np.argmax(trial.seconds >= length)) if (trial.seconds >= length).any() else len(trial.seconds) - 1
            for trial in trials]
    ratios = np.array([trial.ratios[end] for trial, end in zip(trials, ends, strict=True)])
    targets = np.array([trial.target for trial in trials])
    others = np.sort(ratios[~targets])[::-1]
    highest = others[int(far * len(others) + 1e-9)]                 # of those that are not accepted
    seconds = np.mean([trial.seconds[end] for trial, end in zip(trials, ends, strict=True)])
    return seconds, *rates(ratios >= trials[0].limit, trials), float(np.mean(ratios[targets] <= highest))


def compare(title, trials):
    """Print the sequential test beside fixed lengths."""
    far, frr, own, other = sequential(trials)
    mean = (own + other) / 2
    print(f"{title}: {len(trials)} trials, {sum(trial.target for trial in trials)} targets")
    print(f"  sequential      {mean:5.2f} s of speech ({own:.2f} s target, {other:.2f} s non-target)   "
          f"FAR {far:.2%}  FRR {frr:.2%}")
    for length in LENGTHS:
        seconds, fixed_far, fixed_frr, same = fixed(trials, length, far)
        print(f"  fixed {length:4.1f} s    {seconds:5.2f} s of speech   FAR {fixed_far:.2%}  FRR {fixed_frr:.2%}   "
              f"FRR at that FAR {same:6.2%} {'#' * round(200 * same)}")
    curve = [fixed(trials, length, far) for length in np.arange(1, PROBE_SECONDS, 0.1)]
    equal = next((seconds for seconds, *_, same in curve if same <= frr), None)
    bar = "no fixed length is as good" if equal is None else (
        f"as good from {equal:.2f} s on: the sequential test takes {mean / equal:.2f} x that")
    print(f"  {bar} (bar 0.5 x)", flush=True)


def identify(looks, owner, lead, member):
    """Return whether the right one, the wrong one or nobody was found, and the seconds that took: who of all is it?"""
    for look in looks:
        ranked = [(name, ratio) for name, ratio in look.ratios.items() if member or name != owner]
        best, second = ranked[0], ranked[1]
        alone = replace(look, speaker=best[0], llr=best[1], ratios=dict([best]))
        if alone.sure and (best[1] < alone.threshold.llr or best[1] - second[1] >= lead):
            break
    found = "nobody" if best[1] < alone.threshold.llr else "right" if best[0] == owner else "wrong"
    return found, look.probe_seconds


def compare_leads(looks, leads):
    """Print how often the right one of several is found, by the lead that it needs; infinity goes on to the end."""
    for member in (True, False):
        for lead in leads:
            found, seconds = zip(*(identify(own, owner, lead, member) for owner, own in looks), strict=True)
            shares = ", ".join(f"{kind} {found.count(kind) / len(found):.1%}" for kind in ("right", "wrong", "nobody"))
            print(f"  {'one of them' if member else 'a stranger'}, lead {lead}: {shares}, {np.mean(seconds):.2f} s")


def measure_sequential(verifier, shared, *, validation):
    """Print all tables of the test speakers or the validation speakers."""
    looks = {}
    for corpus, folders in speaker_folders(shared, validation).items():
        voices, probes = enrol_and_join(verifier, folders, CORPORA[corpus])
        found = [(owner, looks_at(verifier, voices, wave)) for owner, wave in probes]
        looks[corpus] = [(owner, own) for owner, own in found if own]
    for far in (None, 0.01, 0.001):
        config = replace_far(verifier.config, far)
        threshold = verification.Verifier(config).threshold
        print(f"\n--far {far or 'none: the EER'}, {'validation' if validation else 'test'} speakers; ratio "
              f"{threshold.llr:.2f}, sure below {threshold.bounds[0]:.2f} and above {threshold.bounds[1]:.2f}")
        moved = {corpus: [(owner, [at_point(look, threshold) for look in own]) for owner, own in found]
                 for corpus, found in looks.items()}
        trials = {corpus: [trial_of(own, name, owner) for owner, own in found for name in own[0].ratios]
                  for corpus, found in moved.items()}
        for corpus, own in trials.items():
            compare(corpus, own)
        compare("all", [trial for own in trials.values() for trial in own])
        print("who of all is it?")
        compare_leads([pair for own in moved.values() for pair in own], (0, 1, 2, 3) if validation else
                      (verification.LEAD, np.inf))


def replace_far(config, far):
    """Return flags of the same model for another --far."""
    argv = ["--model_path", str(config.model_path), *([] if far is None else ["--far", str(far)])]
    return configuration.get_config(argv)


# ---- cost -------------------------------------------------------------------------------------------------------

def measure_cost(verifier, shared):
    """Print the share of one core that listening takes, by the length of the recording."""
    sr = verifier.config.sr
    voices, probes = enrol_and_join(verifier, speaker_folders(shared, False)["corpus"][:10], 5)
    wave = np.concatenate([probe for _, probe in probes])
    for rate in (sr, 48000):
        heard = wave if rate == sr else audio.librosa.resample(wave, orig_sr=sr, target_sr=rate)
        shares = []
        for seconds in (10, 30, 60, 300):
            listener, verdicts, started = verification.Listener(verifier, voices, rate), 0, time.process_time()
            for block in blocks_of(heard[:seconds * rate], rate):
                verdicts += listener.feed(block) is not None
            shares.append(f"{(time.process_time() - started) / seconds:.1%} in {seconds} s ({verdicts} verdicts)")
        print(f"listening at {rate} Hz to 10 speakers takes of one core: {', '.join(shares)} (bar 20 %)", flush=True)


def main():
    """Measure and print."""
    shared = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT.parent / "shared")
    if not any(shared.glob("corpus/test/*")):
        sys.exit(f"{shared} has no corpus/test: name the folder of the corpora")
    verifier = verification.Verifier(configuration.get_config(["--model_path", str(ROOT / "pretrained")]))
    measure_cost(verifier, shared)
    measure_sequential(verifier, shared, validation=True)
    measure_sequential(verifier, shared, validation=False)


if __name__ == "__main__":
    main()
