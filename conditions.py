"""What happens to a voice on its way: noise, babble, rooms, telephones, codecs, levels.

    under = conditions.CONDITIONS["telephone"](wave, 16000, np.random.default_rng(0))          (S,), as long as wave
    description, wave = conditions.draw(conditions.Surroundings(), wave, 16000, rng)        what a training copy hears

Each condition takes samples (S,), their rate in Hz and a generator, and returns as many samples, each where it was;
the same seed gives the same samples. A signal-to-noise ratio is that of the voiced speech to the noise, in dB.
Loaded only where copies are made or a test asks for conditions: audiomentations and pyroomacoustics do the work.
"""
import contextlib
import functools
import importlib.util
import io
import os
import pathlib
import random
import warnings
from dataclasses import dataclass

import numpy as np
import scipy
import soundfile

import audio
from common import InputError, LazyModule, wav_bytes, write_json, write_whole

BABBLERS = (3, 7)            # voices in a babble, at least and at most
NEIGHBOURS = 50              # other voices that may babble behind a speaker
HUMS = (50, 60)              # Hz of the mains
ROOMS = 32                   # simulated rooms of each reverberation time
RT60_STEP = 0.05             # s between reverberation times of rooms that are drawn
MIXED_SUFFIXES = {".aif", ".aiff", ".flac", ".mp3", ".ogg", ".opus", ".wav"}     # of noise that audiomentations reads
NOISE_DRAWS = 20             # of parts of a noise until one is not silent
PIECE_SECONDS = 30           # of each piece of noise that is cut from pairs of recordings
PHONE_RATE = 8000            # Hz
PHONE_BAND = (300, 3400)     # Hz
CODEC_RATE = 16000           # Hz at which codecs work
CODECS = {"opus": {"format": "OGG", "subtype": "OPUS", "compression_level": 0.98},          # 11 kbit/s
          "mp3": {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT", "compression_level": 0.9}}
MP3_DELAY = 1105             # samples by which what LAME has coded at 16 kHz, and libsndfile reads, comes late
PIECES = "noise_[0-9][0-9][0-9].wav"
ORIGIN = ".origin.json"      # in a folder that was made here, of noise or of a public corpus: of what


def load(name):
    """Import a library of this room; InputError where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return __import__(name)
    except ImportError as error:
        raise InputError(f"{name} is needed for copies and conditions and cannot be loaded ({error}): "
                         "pip install -r requirements.txt") from error


def check_libraries():
    """Raise InputError where what makes conditions is not installed."""
    for name in ("audiomentations", "pyroomacoustics"):
        if not importlib.util.find_spec(name):
            load(name)


audiomentations = LazyModule(functools.partial(load, "audiomentations"))
pyroomacoustics = LazyModule(functools.partial(load, "pyroomacoustics"))


@contextlib.contextmanager
def seeded(rng):
    """Give the generators that audiomentations and pyroomacoustics draw from a seed of `rng`, and restore the first."""
    seed, before = int(rng.integers(2**32)), (random.getstate(), np.random.get_state())     # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)        # noqa: NPY002
    try:
        yield seed
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])      # noqa: NPY002


def transform(wave, sr, rng, name, **options):
    """Return what audiomentations' transform of that name makes of samples (S,)."""
    with seeded(rng), warnings.catch_warnings():
        warnings.simplefilter("ignore")         # a noise at another rate is resampled
        return getattr(audiomentations, name)(p=1.0, **options)(np.asarray(wave, np.float32), sr)


# ---- noise ------------------------------------------------------------------------------------------------------

def speech_of(wave, sr):
    """Return the voiced samples of a recording, all of it where nothing is."""
    speech = audio.voiced(wave, sr=sr, window=0.025, hop=0.01, top_db=30)
    return speech if len(speech) else wave


def overall_snr(wave, sr, snr):
    """Return the ratio of the whole recording to a noise that gives its voiced speech the ratio `snr`, both in dB."""
    return snr + audio.level_db(wave) - audio.level_db(speech_of(wave, sr))


def mix(wave, noise, sr, snr):
    """Add noise (S,) at a signal-to-noise ratio."""
    gain = 10 ** ((audio.level_db(wave) - overall_snr(wave, sr, snr) - audio.level_db(noise)) / 20)
    return (wave + gain * noise).astype(np.float32)


def colour_noise(wave, sr, rng, *, snr, decay=0.0):
    """Add noise whose spectrum falls by `decay` dB per octave: 0 is white, 3.01 pink, 6.02 brown."""
    overall = overall_snr(wave, sr, snr)
    return transform(wave, sr, rng, "AddColorNoise", min_snr_db=overall, max_snr_db=overall, min_f_decay=-decay,
                     max_f_decay=-decay, n_fft=1024)


def hum(wave, sr, rng, *, snr):
    """Add the hum of the mains: 50 or 60 Hz and its harmonics."""
    harmonics = rng.choice(HUMS) * rng.normal(1, 0.002) * np.arange(1, 9)               # Hz, (8,)
    phases, amplitudes = rng.uniform(0, 2 * np.pi, 8), rng.uniform(0.2, 1, 8) / np.arange(1, 9)
    time, noise = np.arange(len(wave)) / sr, np.zeros(len(wave))
    for harmonic, phase, amplitude in zip(harmonics, phases, amplitudes, strict=True):      # all at once take 8 times
        noise += amplitude * np.sin(2 * np.pi * harmonic * time + phase)                    # the memory
    return mix(wave, noise, sr, snr)


def recorded_noise(wave, sr, rng, *, files, snr):
    """Add a part of one of some recordings of noise that is not silent, repeated where it is shorter."""
    path = files[int(rng.integers(len(files)))]
    if not np.any(wave):
        return wave
    for _ in range(NOISE_DRAWS):
        try:
            heard = noise_part(wave, sr, rng, path=path, snr=snr)
        except InputError as error:
            raise InputError(f"{error}; take it out of the folder of noises") from error
        except Exception as error:      # librosa tries several readers, each of which raises its own
            raise InputError(f"{path} cannot be read as noise ({type(error).__name__}: {error}): take it out of the "
                             "folder") from error
        if not np.array_equal(heard, wave):
            return heard
    raise InputError(f"{path} is silent, or nearly everywhere: take it out of the folder of noises")


def noise_part(wave, sr, rng, *, path, snr):
    """Add a part of a recording of noise; audiomentations would scale one that is shorter before it repeats it."""
    if is_mixed_as_it_is(path, len(wave) / sr):
        overall = overall_snr(wave, sr, snr)
        return transform(wave, sr, rng, "AddBackgroundNoise", sounds_path=[path], min_snr_db=overall,
                         max_snr_db=overall)
    noise = whole_noise(path, sr)
    start = int(rng.integers(max(1, len(noise) - len(wave) + 1)))
    part = np.resize(noise[start:start + len(wave)], len(wave))
    return mix(wave, part, sr, snr) if part.any() else wave


def is_mixed_as_it_is(path, seconds):
    """Tell whether audiomentations can read a noise, which it tells by its suffix, of at least so many seconds."""
    try:
        return pathlib.Path(path).suffix.lower() in MIXED_SUFFIXES and soundfile.info(path).duration >= seconds
    except soundfile.LibsndfileError:           # whose suffix is wrong
        return False


@functools.lru_cache(maxsize=4)
def whole_noise(path, sr):
    """Return the samples (S,) of a noise: a short one, or one of which PyAV decodes the whole to give a part."""
    return audio.load_audio(path, sr)


def babble(wave, sr, rng, *, voices, snr):
    """Add several others who talk at once, at levels within 6 dB; `voices` are one folder of recordings each."""
    noise = np.zeros(len(wave), np.float32)
    for voice in babblers(voices, rng):
        files = recordings_of(voice)
        talk = talk_of(files, int(rng.integers(len(files))), sr) if files else ()
        if not len(talk):
            continue
        talk = np.roll(np.resize(talk, len(wave)), rng.integers(len(wave)))
        noise += talk * 10 ** ((rng.uniform(-3, 3) - audio.level_db(talk)) / 20)
    return mix(wave, noise, sr, snr) if noise.any() else wave


def babblers(voices, rng):
    """Return those of the voices who talk in a babble, about half at most: what its rng decides first."""
    number = min(int(rng.integers(BABBLERS[0], BABBLERS[1] + 1)), -(-len(voices) // 2))
    return [voices[place] for place in rng.choice(len(voices), number, replace=False)]


def talk_of(files, first, sr):
    """Return the speech (S,) of the first recording from a place on that can be read, nothing where none can."""
    for path in (*files[first:], *files[:first]):
        try:
            return speech_of(audio.load_audio(path, sr), sr)
        except InputError as error:                 # preprocessing names it
            if isinstance(error.__cause__, ImportError):
                raise
    return ()


@functools.lru_cache(maxsize=4096)
def recordings_of(folder):
    """Return the paths of the recordings below a folder."""
    return [str(pathlib.Path(folder, file)) for file in audio.audio_files(folder)[0]]


# ---- rooms ------------------------------------------------------------------------------------------------------

def room(wave, sr, rng, *, rt60):
    """Place voice and microphone somewhere in a shoebox room with a reverberation time of `rt60` seconds.

    The level is kept, and the direct sound is where the voice was.
    """
    response = room_response(sr, rt60, int(rng.integers(ROOMS)))
    heard = scipy.signal.oaconvolve(wave, response)[:len(wave)]
    return (heard * 10 ** ((audio.level_db(wave) - audio.level_db(heard)) / 20)).astype(np.float32)


@functools.lru_cache(maxsize=1024)
def room_response(sr, rt60, number):
    """Return the impulse response (R,) of a room; it begins with the direct sound, which is 1.

    Image sources and ray tracing (pyroomacoustics); Sabine's absorption is corrected until the reverberation time
    measured on the response is within a twentieth of `rt60`, four times at most: of 0.2 s that leaves some rooms up to
    a fifth away.
    """
    rng = np.random.default_rng([number, round(1000 * rt60)])
    size = rng.uniform((3, 3, 2.4), (8, 6, 3.2))                                        # m
    places = rng.uniform(0.5, size - 0.5), rng.uniform(0.5, size - 0.5)                 # of voice and microphone
    wanted = rt60
    with seeded(rng) as seed:
        for _ in range(5):
            pyroomacoustics.random.seed(seed)
            absorption, order = pyroomacoustics.inverse_sabine(wanted, size)
            model = pyroomacoustics.ShoeBox(size, fs=sr, materials=pyroomacoustics.Material(absorption),
                                            max_order=min(order, 10), ray_tracing=True, air_absorption=True)
            model.add_source(places[0])
            model.add_microphone(places[1])
            model.compute_rir()
            response = model.rir[0][0]
            measured = float(pyroomacoustics.experimental.measure_rt60(response, sr, decay_db=30))
            if abs(measured / rt60 - 1) < 0.05:
                break
            wanted *= rt60 / measured
    direct = np.linalg.norm(places[0] - places[1]) / pyroomacoustics.constants.get("c") * sr
    start = int(direct) + pyroomacoustics.constants.get("frac_delay_length") // 2
    start = max(0, start - 8) + int(np.argmax(np.abs(response[max(0, start - 8):start + 8])))
    return (response[start:] / response[start]).astype(np.float32)


# ---- channels ---------------------------------------------------------------------------------------------------

def telephone(wave, sr, rng, *, coding="ULAW", band=PHONE_BAND):
    """Send a voice over a telephone: a band in Hz, 8 kHz, coded as "ULAW", "ALAW" (G.711) or "GSM610" (6.10)."""
    narrow = audio.librosa.resample(np.asarray(wave, np.float32), orig_sr=sr, target_sr=PHONE_RATE)
    sections = scipy.signal.butter(4, band, "bandpass", fs=PHONE_RATE, output="sos")
    narrow = scipy.signal.sosfiltfilt(sections, narrow)
    back = through_file(narrow, PHONE_RATE, format="WAV", subtype=coding)
    return fitted(audio.librosa.resample(back, orig_sr=PHONE_RATE, target_sr=sr), len(wave))


def codec(wave, sr, rng, *, name):
    """Code a voice at a low rate, "opus" or "mp3", and decode it."""
    wide = audio.librosa.resample(np.asarray(wave, np.float32), orig_sr=sr, target_sr=CODEC_RATE)
    late = MP3_DELAY if name == "mp3" else 0
    back = through_file(np.pad(wide, (0, late)), CODEC_RATE, **CODECS[name])[late:]
    return fitted(audio.librosa.resample(back, orig_sr=CODEC_RATE, target_sr=sr), len(wave))


def through_file(wave, sr, **options):
    """Return samples as libsndfile reads them after it has written them in some format."""
    file = io.BytesIO()
    soundfile.write(file, np.clip(wave, -1, 1), sr, **options)
    file.seek(0)
    return soundfile.read(file, dtype="float32")[0]


def fitted(wave, length):
    """Return samples cut, or padded with silence, to a length."""
    return np.pad(wave[:length], (0, max(0, length - len(wave)))).astype(np.float32)


def clipping(wave, sr, rng, *, percent):
    """Clip `percent` of the samples, half of them at the top and half at the bottom."""
    return np.clip(wave, *np.percentile(wave, (percent / 2, 100 - percent / 2))).astype(np.float32)


def level(wave, sr, rng, *, decibels):
    """Make a recording louder or quieter and round it to 16 bits, as a sound card does."""
    louder = transform(wave, sr, rng, "Gain", min_gain_db=decibels, max_gain_db=decibels)
    return (np.clip(np.round(louder * 2**15), -2**15, 2**15 - 1) / 2**15).astype(np.float32)


# ---- conditions by name -----------------------------------------------------------------------------------------

CONDITIONS = {
    "level -20 dB": functools.partial(level, decibels=-20),
    **{f"white noise {snr} dB": functools.partial(colour_noise, snr=snr) for snr in (20, 10, 5)},
    "pink noise 10 dB": functools.partial(colour_noise, snr=10, decay=3.01),
    "hum 10 dB": functools.partial(hum, snr=10),
    **{f"room {rt60} s": functools.partial(room, rt60=rt60) for rt60 in (0.2, 0.4, 0.8)},
    "telephone": telephone,
    "opus": functools.partial(codec, name="opus"),
    "mp3": functools.partial(codec, name="mp3"),
    "clipping 10 %": functools.partial(clipping, percent=10)}


@dataclass(frozen=True)
class Surroundings:
    """The recordings that conditions mix in: folders of voices, one each, and files of noise."""

    voices: tuple = ()
    noises: tuple = ()

    def absolute(self):
        """Return the same with paths that hold in any working folder."""
        return Surroundings(*(tuple(str(pathlib.Path(path).absolute()) for path in paths)
                              for paths in (self.voices, self.noises)))

    def beside(self, source):
        """Return the surroundings of a speaker's folder or recording: some other voices, which its name alone decides.

        Both must be absolute, or both as they were found.
        """
        others = [voice for voice in self.voices if not f"{source}{os.sep}".startswith(f"{voice}{os.sep}")]
        rng = np.random.default_rng(list(os.path.basename(source).encode()))
        chosen = rng.choice(len(others), min(NEIGHBOURS, len(others)), replace=False) if others else ()
        return Surroundings(tuple(others[index] for index in chosen), self.noises)

    def under(self, name, wave, sr, rng):
        """Return a condition's description and samples (S,) under it; a name that is none stands for a random one."""
        if name in self.conditions:
            return name, self.conditions[name](wave, sr, rng)
        return draw(self, wave, sr, rng)

    def who_babbles(self, name, rng):
        """Return the names of those who talk under a condition with an rng; of random conditions it is not told."""
        babble_is_meant = name.startswith("babble") and name in self.conditions
        return [os.path.basename(voice) for voice in babblers(self.voices, rng)] if babble_is_meant else []

    @property
    def conditions(self):
        """All conditions by name: CONDITIONS, and those that these recordings allow."""
        found = dict(CONDITIONS)
        if self.voices:
            found |= {f"babble {snr} dB": functools.partial(babble, voices=self.voices, snr=snr) for snr in (20, 10, 5)}
        if self.noises:
            found |= {f"recorded noise {snr} dB": functools.partial(recorded_noise, files=self.noises, snr=snr)
                      for snr in (20, 10, 5)}
        return found


# ---- copies for training ----------------------------------------------------------------------------------------

def draw(surroundings, wave, sr, rng):
    """Return random conditions in words, a room, a noise and a channel or some of them, and samples (S,) under these.

    Noise has 0 to 25 dB SNR, rooms an RT60 of 0.2 to 1 s; two of five copies come through a telephone or a codec.
    """
    chosen = []
    while not chosen:
        if rng.random() < 0.4:
            chosen.append(draw_room(rng))
        if rng.random() < 0.6:
            chosen.append(draw_noise(surroundings, rng))
        if rng.random() < 0.4:
            chosen.append(draw_channel(rng))
    for _, condition in chosen:
        wave = condition(wave, sr, rng)
    return ", ".join(name for name, _ in chosen), wave


def draw_room(rng):
    """Return the name of a random room and its condition."""
    rt60 = round(RT60_STEP * int(rng.integers(round(0.2 / RT60_STEP), round(1.0 / RT60_STEP) + 1)), 2)
    return f"room {rt60} s", functools.partial(room, rt60=rt60)


def draw_noise(surroundings, rng):
    """Return the name of a random noise and its condition."""
    snr, decay = round(rng.uniform(0, 25)), round(rng.uniform(-2, 8), 1)
    kinds = {"noise": (0.25, functools.partial(colour_noise, decay=decay)), "hum": (0.05, hum)}
    if surroundings.voices:
        kinds["babble"] = 0.3, functools.partial(babble, voices=surroundings.voices)
    if surroundings.noises:
        kinds["recorded noise"] = 0.4, functools.partial(recorded_noise, files=surroundings.noises)
    weights = np.array([weight for weight, _ in kinds.values()])
    kind = list(kinds)[int(rng.choice(len(kinds), p=weights / weights.sum()))]
    return f"{kind} {snr} dB", functools.partial(kinds[kind][1], snr=snr)


def draw_channel(rng):
    """Return the name of a random telephone, codec, clipping or level, and its condition."""
    kind = rng.choice(["telephone", "opus", "mp3", "clipping", "level"], p=[0.7, 0.1, 0.05, 0.1, 0.05])
    if kind == "telephone":
        coding, band = str(rng.choice(["ULAW", "ALAW", "GSM610"])), rng.integers((150, 3000), (401, 3701)).tolist()
        return f"telephone {coding} {band[0]}-{band[1]} Hz", functools.partial(telephone, coding=coding, band=band)
    if kind == "clipping":
        percent = int(rng.integers(2, 16))
        return f"clipping {percent} %", functools.partial(clipping, percent=percent)
    if kind == "level":
        decibels = -int(rng.integers(10, 41))
        return f"level {decibels} dB", functools.partial(level, decibels=decibels)
    return str(kind), functools.partial(codec, name=str(kind))


def noises_to_mix(config):
    """Return the files of noise that copies mix in: of --noise_raw_path, and in text-dependent mode of --noise_path.

    With --clean_path and --noisy_path, that is made first.
    """
    if config.clean_path:
        cut_noise(config.clean_path, config.noisy_path, config.noise_path, pieces=config.noise_filenum, sr=config.sr)
    noises = find_noises(config.noise_raw_path) if config.noise_raw_path else ()
    if config.clean_path or (config.tdsv and os.path.isdir(config.noise_path)):
        noises += tuple(path for path in recordings_of(config.noise_path) if path not in noises)
    return noises


def find_noises(folder):
    """Return the files of a folder of noise, InputError where it has none."""
    if not pathlib.Path(folder).is_dir():
        raise InputError(f"--noise_raw_path is {folder}: there is no such folder")
    files = recordings_of(str(folder))
    if not files:
        raise InputError(f"--noise_raw_path is {folder}: it holds no recordings")
    for file in files:              # said before the work, not amid it
        try:
            audio.read_with(file, lambda recording: None, lambda track, log: None)
        except InputError as error:
            raise InputError(f"--noise_raw_path is {folder}: {error}; take that file out") from error
    return tuple(files)


def cut_noise(clean_path, noisy_path, target, *, pieces, sr):
    """Write the noise that recordings in noisy_path have and those of the same names in clean_path lack, to a folder.

    Pairs spread over all of them are subtracted until there are 30 s for each piece. Raises InputError where a pair is
    incomplete, not of one length, or without a difference, or the folder holds pieces that were not made here.
    """
    folders = {"clean_path": pathlib.Path(clean_path), "noisy_path": pathlib.Path(noisy_path)}
    for flag, folder in folders.items():
        if not folder.is_dir() or not recordings_of(str(folder)):
            raise InputError(f"--{flag} is {folder}: there is no such folder, or no recording in it")
    target = pathlib.Path(target)
    if any(target.glob(PIECES)) and not (target / ORIGIN).exists():
        raise InputError(f"--noise_path is {target}: it holds noise_000.wav or the like, which were not made here, or "
                         "by an older version; name a new folder for the noise")
    files, parts = audio.audio_files(noisy_path)[0], []
    for place in np.random.default_rng(0).permutation(len(files)):
        if sum(map(len, parts)) < PIECE_SECONDS * pieces * sr:
            parts.append(noise_between(*(folder / files[place] for folder in folders.values()), sr))
    write_json(target / ORIGIN, {flag: str(folder) for flag, folder in folders.items()})
    for number, piece in enumerate(np.array_split(np.concatenate(parts), pieces)):
        content = wav_bytes(piece, sr, "FLOAT")
        write_whole(target / f"noise_{number:03}.wav", lambda file, content=content: file.write(content))
    for path in target.glob(PIECES):            # of an earlier run with more pieces
        if int(path.stem[-3:]) >= pieces:
            path.unlink()
    recordings_of.cache_clear()


def noise_between(clean, noisy, sr):
    """Return the difference (S,) of a noisy recording and the clean one that it was made of."""
    if not clean.exists():
        raise InputError(f"{noisy} has no clean counterpart {clean}: both folders need the same names")
    waves = audio.load_audio(noisy, sr), audio.load_audio(clean, sr)
    if len(waves[0]) != len(waves[1]):
        raise InputError(f"{noisy} has {len(waves[0])} samples and {clean} {len(waves[1])}: they are not aligned")
    difference = waves[0] - waves[1]
    if np.abs(difference).max(initial=0) < audio.SILENT_PEAK:
        raise InputError(f"{noisy} and {clean} do not differ: --noisy_path needs what --clean_path holds, in noise")
    return difference
