"""Synthetic voices: a corpus made in seconds, offline, the same each time.

    python tests/voices.py demo/raw                 40 voices in demo/raw/train, 8 in demo/raw/test, 12 utterances each
    python tests/voices.py demo/raw --texts 2       all voices say two texts 12 times: text0_00.wav, text1_00.wav ...

Source-filter synthesis (Fant 1960): a pulse train with breath noise passes a spectral tilt and five formants. A voice
has a pitch, a vocal-tract length, a breathiness, a tilt, a rate and formants of its own; an utterance has its words,
its pauses, a mood that moves the pitch, a level, a microphone and a background noise.
"""
import argparse
import pathlib
from dataclasses import dataclass

import numpy as np
import scipy.signal
import soundfile

SR = 16000  # Hz
# Formants of a man's vowels, in Hz (Peterson and Barney 1952); the two highest hardly move.
VOWELS = np.array([(270, 2290, 3010), (390, 1990, 2550), (530, 1840, 2480), (660, 1720, 2410), (730, 1090, 2440),
                   (570, 840, 2410), (440, 1020, 2240), (300, 870, 2240), (640, 1190, 2390), (490, 1350, 1690)])
BANDWIDTHS = np.array([60, 90, 150, 200, 250])  # Hz


@dataclass(frozen=True)
class Voice:
    """What stays the same in all utterances of a speaker."""

    pitch: float                # Hz
    tract: float                # vocal-tract length relative to a man's
    breath: float               # noise relative to the pulses
    tilt: float                 # pole of the low-pass behind the source
    rate: float                 # phones per second, relative
    formants: np.ndarray        # (10, 5) Hz, one row per vowel


def make_voice(rng):
    """Draw a voice; tract length follows pitch loosely, as it does in people."""
    height = rng.uniform(-1, 1)
    tract = 1 - 0.12 * height + 0.04 * rng.standard_normal()
    vowels = np.hstack([VOWELS, np.tile((3500, 4500), (len(VOWELS), 1))])
    own = rng.normal(1, 0.035, vowels.shape) * rng.normal(1, 0.03, 5)
    return Voice(pitch=150 * 2 ** (0.6 * height + 0.2 * rng.standard_normal()), tract=tract,
                 breath=rng.uniform(0.02, 0.3), tilt=rng.uniform(0.75, 0.95), rate=rng.uniform(0.8, 1.25),
                 formants=vowels * own / tract)


def phones(voice, seconds, rng):
    """Return phones (kind, samples) that fill `seconds`: a vowel's number, "s" for a hiss, "-" for a pause."""
    sequence, left = [], seconds * SR
    while left > 0:
        kind = rng.choice(["vowel", "s", "-"], p=[0.72, 0.18, 0.10])
        length = {"vowel": rng.uniform(0.08, 0.22), "s": rng.uniform(0.05, 0.12), "-": rng.uniform(0.1, 0.4)}[kind]
        samples = int(length / voice.rate * SR)
        sequence.append((int(rng.integers(len(VOWELS))) if kind == "vowel" else str(kind), samples))
        left -= samples
    return sequence


def source(voice, samples, mood, rng):
    """Return the excitation (samples,): pulses at a pitch that wanders and falls, and breath."""
    time = np.arange(samples) / SR
    wander = 0.06 * np.sin(2 * np.pi * rng.uniform(0.4, 1.2) * time + rng.uniform(0, 6)) - 0.04 * time
    jitter = scipy.signal.lfilter([0.02], [1, -0.98], rng.standard_normal(samples)) * 0.1
    phase = np.cumsum(voice.pitch * mood * 2 ** (wander + jitter)) / SR
    pulses = np.diff(np.floor(phase), prepend=0) * np.sqrt(SR / voice.pitch)
    breathy = pulses + voice.breath * rng.standard_normal(samples)
    return scipy.signal.lfilter([1 - voice.tilt], [1, -voice.tilt], breathy)


def resonators(frequencies, bandwidths):
    """Return second-order sections, one per formant below the Nyquist frequency, of gain 1 at 0 Hz."""
    radius = np.exp(-np.pi * bandwidths / SR)
    angle = 2 * np.pi * np.minimum(frequencies, 0.47 * SR) / SR
    a1, a2 = -2 * radius * np.cos(angle), radius**2
    zero = np.zeros_like(a1)
    return np.stack([1 + a1 + a2, zero, zero, np.ones_like(a1), a1, a2], axis=1)


def utterance(voice, seconds, rng, text=None):
    """Synthesise one utterance, float64 (S,) within [-1, 1], with silence and noise around it.

    A text, a number, is the same phones whoever says it, in `seconds` at the usual rate; without one they are any.
    """
    words = rng if text is None else np.random.default_rng(text)
    sequence = phones(voice, seconds if text is None else seconds / voice.rate, words)
    excitation = source(voice, sum(samples for _, samples in sequence), rng.normal(1, 0.05), rng)
    wave, start, state = np.zeros_like(excitation), 0, np.zeros((5, 2))
    for kind, samples in sequence:
        part = slice(start, start + samples)
        if kind == "s":
            hiss = scipy.signal.lfilter([1, -0.9], [1], rng.standard_normal(samples))
            wave[part] = 0.05 * hiss * np.hanning(samples)
        elif kind != "-":
            sections = resonators(voice.formants[kind], BANDWIDTHS)
            wave[part], state = scipy.signal.sosfilt(sections, excitation[part], zi=state)
            wave[part] *= np.sqrt(np.hanning(samples))
        start += samples
    return recorded(wave, rng)


def recorded(wave, rng):
    """Return a wave as a microphone would give it: edges of silence, a tilt, a level and background noise."""
    wave = np.pad(wave, rng.integers(SR // 5, SR // 2, 2))
    wave = scipy.signal.lfilter([1, rng.uniform(-0.5, 0.5)], [1], wave)
    level = 10 ** (rng.uniform(-26, -6) / 20)
    snr = 10 ** (rng.uniform(12, 30) / 20)
    noise = scipy.signal.lfilter([1], [1, -rng.uniform(0, 0.9)], rng.standard_normal(len(wave)))
    speech = wave / np.sqrt(np.mean(wave**2))
    mixed = speech + noise / np.sqrt(np.mean(noise**2)) / snr
    return level * mixed / np.abs(mixed).max()


def write_texts(folder, speakers, takes, texts, seconds=1.5, seed=0):
    """Write `takes` WAV files of each of a number of texts by each speaker, as write_corpus, <text>_<take>.wav."""
    for number in speakers:
        voice = make_voice(np.random.default_rng([seed, number]))
        home = pathlib.Path(folder, f"voice{number:02}")
        home.mkdir(parents=True, exist_ok=True)
        for text in range(texts):
            for take in range(takes):
                rng = np.random.default_rng([seed, number, take + 1, text + 1])
                soundfile.write(home / f"text{text}_{take:02}.wav", utterance(voice, seconds, rng, text), SR, "PCM_16")


def write_corpus(folder, speakers, utterances, seconds=(3.0, 5.0), seed=0):
    """Write `utterances` WAV files (16 kHz, 16 bit) of each speaker number in `speakers` to folder/voice<number>."""
    for number in speakers:
        voice = make_voice(np.random.default_rng([seed, number]))
        home = pathlib.Path(folder, f"voice{number:02}")
        home.mkdir(parents=True, exist_ok=True)
        for take in range(utterances):
            rng = np.random.default_rng([seed, number, take + 1])      # a trailing 0 would be the voice's own stream
            soundfile.write(home / f"{take:02}.wav", utterance(voice, rng.uniform(*seconds), rng), SR, "PCM_16")


def main(argv=None):
    """Write the demo's corpus."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="where train/ and test/ are written")
    parser.add_argument("--voices", type=int, default=48, help="the last 8 are the test (default 48)")
    parser.add_argument("--utterances", type=int, default=12, help="per voice (default 12)")
    parser.add_argument("--texts", type=int, default=0, help="number of texts that all say; 0: free speech (default)")
    options = parser.parse_args(argv)
    first_test = options.voices - 8
    for part, voices in (("train", range(first_test)), ("test", range(first_test, options.voices))):
        if options.texts:
            write_texts(pathlib.Path(options.folder, part), voices, options.utterances, options.texts)
        else:
            write_corpus(pathlib.Path(options.folder, part), voices, options.utterances)
    texts = f" of each of {options.texts} texts" if options.texts else ""
    print(f"{options.voices} voices with {options.utterances} utterances{texts} each in {options.folder}")


if __name__ == "__main__":
    main()
