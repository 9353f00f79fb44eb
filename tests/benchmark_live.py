"""A verdict while somebody speaks: what listening costs, how soon it is sure, who speaks now, how soon a fault is told.

    python tests/benchmark_live.py [folder of corpora]

The folder, ../shared where none is given, holds corpus, commonvoice and an4, each with train/ and test/, a folder per
speaker. Bars: under 20 % of a core while listening; half the speech of the fixed length with the same FAR and FRR.

Each speaker enrols with 5 utterances (Common Voice: 4), the others are joined and cut into probes of up to 10 s, each
a trial against every speaker of its corpus. A fixed length has its verdict at the first look with so much speech; where
the recording has less, at its end. The FRR "at that FAR" is that of the threshold which gives a fixed length the FAR of
the sequential test, whatever the model stores. LEAD and what the bounds are made of were chosen on the model's
validation speakers, who enrol five times, each time with other utterances.

In a conversation three enrolled speakers of corpus/test and a stranger take turns of 4 to 8 s. It counts every 0.4 s in
most of which somebody speaks; the delay of a change goes from the turn's start to the first time that it is named
rightly. One conversation is played through a virtual microphone (it needs PulseAudio and PortAudio), as are the faults.
"""
import csv
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import audio
import configuration
import embedding
import listening
import verification

CORPORA = {"corpus": 5, "commonvoice": 4, "an4": 5}         # utterances that enrol
PROBE_SECONDS = 10
LENGTHS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 10.0)        # seconds of speech
BLOCK_SECONDS = 0.05
ROUNDS = 5                                                  # of the validation speakers
SOON = 4.0                                                  # seconds of speech within which most verdicts come


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


def enrol_and_join(verifier, folders, m, rng=None):
    """Return the Voices of speakers, and their probes, pairs of a name and samples (S,) of up to 10 s; rng shuffles."""
    voices, probes, sr = [], [], verifier.config.sr
    for folder in folders:
        files = [folder / file for file in audio.audio_files(folder)[0]]
        if rng:
            rng.shuffle(files)
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
    return accepted[~targets].mean(), (~accepted[targets]).mean()


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
    looks = {corpus: [] for corpus in CORPORA}
    for number in range(ROUNDS if validation else 1):
        rng = np.random.default_rng(number) if validation else None
        for corpus, folders in speaker_folders(shared, validation).items():
            voices, probes = enrol_and_join(verifier, folders, CORPORA[corpus], rng)
            found = [(owner, looks_at(verifier, voices, wave)) for owner, wave in probes]
            looks[corpus] += [(owner, own) for owner, own in found if own]
    print(f"\nbetween two looks of up to {SOON:g} s a ratio grows with a standard deviation of {growth(looks):.2f}")
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


def growth(looks):
    """Return the standard deviation of a ratio's growth between two looks, that of targets and non-targets alike."""
    grown = {True: [], False: []}
    for owner, own in (pair for pairs in looks.values() for pair in pairs):
        for before, after in itertools.pairwise(own):
            if not before.notes and before.probe_seconds < SOON:
                for name, ratio in after.ratios.items():
                    grown[name == owner].append(ratio - before.ratios[name])
    return np.sqrt(np.mean([np.var(part) for part in grown.values()]))


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
    shares = []
    for seconds in (10, 30, 60, 300):
        listener, verdicts, started = verification.Listener(verifier, voices), 0, time.process_time()
        for block in blocks_of(wave[:seconds * sr], sr):
            verdicts += listener.feed(block) is not None
        shares.append(f"{(time.process_time() - started) / seconds:.1%} in {seconds} s ({verdicts} verdicts)")
    print(f"listening to 10 speakers takes of one core: {', '.join(shares)} (bar 20 %)", flush=True)


# ---- who speaks now ---------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Talk:
    """A conversation: samples (S,), the files that its three speakers enrol with, its turns (start, end, name)."""

    wave: np.ndarray
    enrolments: dict
    turns: list


def make_talk(folders, rng, sr, number=8):
    """Return the Talk of four speakers, of whom the last is a stranger."""
    chosen = [folders[index] for index in rng.choice(len(folders), 4, replace=False)]
    files = [[folder / file for file in audio.audio_files(folder)[0]] for folder in chosen]
    waves = [np.concatenate([audio.load_audio(file, sr) for file in own[5:]]) for own in files]
    parts, turns, ends, who = [], [], [0] * 4, -1
    for _ in range(number):
        who = rng.choice([other for other in range(4) if other != who])
        length = int(rng.uniform(4, 8) * sr)
        start = ends[who] if ends[who] + length <= len(waves[who]) else 0
        parts.append(waves[who][start:start + length])
        ends[who] = start + length
        begin = turns[-1][1] if turns else 0.0
        turns.append((begin, begin + len(parts[-1]) / sr, chosen[who].name if who < 3 else listening.SOMEBODY))
    enrolments = {folder.name: own[:5] for folder, own in zip(chosen[:3], files, strict=False)}
    return Talk(np.concatenate(parts), enrolments, turns)


def judge_talk(talk, rows, config):
    """Return whether each moment with speech of rows (time, name) is right, and the delays of the turns, in seconds."""
    right, delays, step = [], [], verification.LOOK_SECONDS
    for start, end, name in talk.turns:
        spoken = np.zeros(round((end - start) * config.sr) + 1, bool)
        own = talk.wave[round(start * config.sr):round(end * config.sr)]
        for first, last in audio.voiced_stretches(own, **audio.detector(config))[0]:
            spoken[first:last] = True
        heard = [(time - start, found == name) for time, found in rows if start + step <= time <= end]
        shares = [spoken[round((time - step) * config.sr):round(time * config.sr)].mean() for time, _ in heard]
        right += [good for (_, good), share in zip(heard, shares, strict=True) if share >= 0.5]
        delays.append(next((time for time, good in heard if good), np.inf))
    return right, delays


def describe_talks(title, judged):
    """Print the share named rightly and the delays."""
    right, delays = (np.concatenate(part) for part in zip(*judged, strict=True))
    ends = np.quantile(delays, (0.5, 0.9), method="lower")
    print(f"{title}: {np.mean(right):.0%} of {0.4 * len(right):.0f} s of speech named rightly; delay of {len(delays)} "
          f"changes: median {ends[0]:.1f} s, nine of ten {ends[1]:.1f} s, never {np.isinf(delays).sum()}", flush=True)


def measure_talks(verifier, shared, number=20):
    """Print how well who speaks is told, of files, and through a microphone."""
    config, rng, judged = verifier.config, np.random.default_rng(0), []
    folders = speaker_folders(shared, False)["corpus"]
    for _ in range(number):
        talk = make_talk(folders, rng, config.sr)
        voices = [verifier.embed_files(name, files) for name, files in talk.enrolments.items()]
        conversation = listening.Conversation(verifier, voices)
        moments = filter(None, map(conversation.feed, blocks_of(talk.wave, config.sr)))
        judged.append(judge_talk(talk, [(moment.seconds, moment.name) for moment in moments], config))
    describe_talks(f"{number} conversations", judged)
    describe_talks("one through a microphone", [measure_microphone(make_talk(folders, rng, config.sr), config)])


def measure_microphone(talk, config):
    """Return judge_talk of record.py --live that hears a Talk; print how soon it answers when the microphone stalls."""
    from conftest import Microphone

    with tempfile.TemporaryDirectory(prefix="mic") as folder:
        folder = pathlib.Path(folder)
        run = [sys.executable, str(ROOT / "record.py"), "--model_path", str(config.model_path), "--enroll_path",
               str(folder / "enroll")]
        for name, files in talk.enrolments.items():
            for file in files:
                subprocess.run([*run, "--speaker", name, "--input", str(file)], check=True, capture_output=True)
        microphone = Microphone(folder)
        microphone.start(config.sr)
        try:
            process = subprocess.Popen([*run, "--live", "--device", "pulse", "--timeline", str(folder / "who.csv")],
                                       env={**os.environ, **microphone.environment}, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.PIPE, text=True)
            microphone.wait_for_listener()
            microphone.play(np.int16(np.clip(talk.wave, -1, 1) * 32767), config.sr)
            time.sleep(len(talk.wave) / config.sr + 0.5)
            microphone.daemon.send_signal(signal.SIGSTOP)
            stopped = time.monotonic()
            answer = process.communicate(timeout=60)[1].splitlines()[-1]
            print(f"a microphone that stalls is answered, and the process gone, after "
                  f"{time.monotonic() - stopped:.1f} s (bar 5 s): {answer}")
        finally:
            microphone.stop()
        with open(folder / "who.csv", encoding="utf-8") as file:
            rows = [(float(row["time"]), row["name"]) for row in csv.DictReader(file)]
        return judge_talk(talk, rows, config)


def main():
    """Measure and print."""
    shared = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT.parent / "shared")
    if not any(shared.glob("corpus/test/*")):
        print(f"nothing measured: {shared} has no corpus/test; name the folder of the corpora")
        return
    verifier = verification.Verifier(configuration.get_config(["--model_path", str(ROOT / "pretrained")]))
    measure_cost(verifier, shared)
    measure_talks(verifier, shared)
    measure_sequential(verifier, shared, validation=True)
    measure_sequential(verifier, shared, validation=False)


if __name__ == "__main__":
    main()
