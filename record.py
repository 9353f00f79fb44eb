"""Record a voice: enrol a speaker, or verify who speaks.

    python record.py --speaker anna                       record an enrolment of anna; further ones add up
    python record.py --verify True --speaker anna         record a probe: is it anna?
    python record.py --verify True                        record a probe: who of the enrolled is it?
    python record.py --verify True --live True            the same; it ends as soon as it is sure
    python record.py --live True                          who of the enrolled speaks now? until Ctrl-C
    python record.py --speaker anna --input FILE          a recording instead of the microphone
    python record.py --speaker anna --forget True         delete anna's enrolment and kept recordings
    python record.py --list_devices True

Enrolments are features in --enroll_path, the probe is in --verify_path; the audio itself is not kept unless
--keep_recording True puts it below --raw_path. All are readable by their owner alone.
"""
import atexit
import contextlib
import datetime
import itertools
import math
import os
import pathlib
import queue
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import filelock
import numpy as np

import audio
import common
import configuration
import embedding
import features
import listening
import verification
from common import InputError, check_target, interrupts_later, private_folder, write_whole

BLOCK_SECONDS = 0.05         # the microphone delivers this much at a time
PATIENCE_SECONDS = 3.0       # a device that delivers nothing for this long is given up
SAVE_SECONDS = 10            # of a conversation after which its time line is written again
CLOSE_SECONDS = 1.0          # that a driver may take to close it
RECORDING_NAME = re.compile(r"\d{8}-\d{6}-\d{6}")          # of a kept recording: when it was made


# ---- the microphone ---------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Device:
    """A microphone, as PortAudio numbers and names it; its rate in Hz is the one it prefers."""

    number: int
    name: str
    rate: float
    default: bool


def portaudio():
    """Return the sounddevice module; InputError where its PortAudio library is missing."""
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        problem = f"recording needs PortAudio ({error}): apt install libportaudio2"
        raise InputError(f"{problem}, or take --input FILE", f"{problem}, or open a file") from error
    return sounddevice


def devices(rescan=False):
    """Return the microphones, a list of Device; InputError where there is none.

    PortAudio looks for them once; `rescan` lets it look again, which no recording may run beside.
    """
    sounddevice = portaudio()
    others = (thread.name for thread in threading.enumerate() if thread is not threading.current_thread())
    if rescan and "microphone" not in others:               # it may hang in a driver
        try:
            with common.quiet_libraries():
                sounddevice._terminate()
                sounddevice._initialize()
        except sounddevice.PortAudioError as error:
            raise InputError(f"PortAudio finds no microphones: {error}") from error
    default = sounddevice.default.device[0]
    found = [Device(entry["index"], entry["name"], entry["default_samplerate"], entry["index"] == default)
             for entry in sounddevice.query_devices() if entry["max_input_channels"]]
    if not found and not rescan:                # one may have been plugged in
        return devices(rescan=True)
    if not found:
        problem = "there is no microphone: plug one in or allow access to it"
        raise InputError(f"{problem}, or take --input FILE", f"{problem}, or open a file")
    return found


def find_device(device=None):
    """Return the Device of a number or a part of a name, without one the default; InputError where it is not one."""
    found = devices()
    if device is None:
        return next((entry for entry in found if entry.default), found[0])
    chosen = ([entry for entry in found if str(entry.number) == str(device)]
              or [entry for entry in found if str(device).lower() in entry.name.lower()])
    if len(chosen) != 1:
        names = ", ".join(f"{entry.number} {entry.name}" for entry in chosen or found)
        problem = f"{'it could be' if chosen else 'the microphones are'} {names}"
        raise InputError(f"--device is {device}: {problem}", f"microphone {device} is not clear: {problem}")
    return chosen[0]


def record(seconds, sr, device=None, on_level=None):
    """Record mono from a microphone.

    Parameters
    ----------
    seconds : float
    sr : int
        In Hz.
    device : int or str, optional
        Number or part of the name of a microphone.
    on_level : callable, optional
        Called with the level of the last block (dB of full scale) and the seconds left, 20 times a second.

    Returns
    -------
    np.ndarray, float32, shape (S,), S = seconds * sr

    Raises
    ------
    InputError
        If there is no such microphone, it does not record at sr, delivers nothing for 3 s, or is lost.
    """
    parts, left = [], round(seconds * sr)
    with nothing_saved(), contextlib.closing(blocks(sr, device)) as coming:
        for block in listening.up_to(left, coming):
            parts.append(block)
            left -= len(block)
            if on_level:
                on_level(audio.level_db(block), left / sr)
    return np.concatenate(parts)


@contextlib.contextmanager
def nothing_saved():
    """Let Ctrl-C say that nothing was saved."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt("stopped by the keyboard: nothing was saved") from stop


def blocks(sr, device=None, cancelled=None, lost="nothing was saved"):
    """Yield a microphone's samples, float32 (S,), as they come, 20 times a second, until the generator is closed.

    Parameters and errors are those of `record`; cancelled() tells whether to stop, which is an InputError, too, and
    `lost` says what becomes of a recording that ends before.
    """
    found, done = queue.Queue(), threading.Event()
    # A driver that hangs cannot be stopped; a daemon thread can be left behind.
    thread = threading.Thread(target=capture_blocks, args=(found, done, sr, device), name="microphone", daemon=True)
    with common.quiet_libraries():
        thread.start()
        try:
            yield from deliver(found, cancelled, lost)
        finally:
            done.set()
            thread.join(CLOSE_SECONDS)
            if thread.is_alive() and "sounddevice" in sys.modules:
                atexit.unregister(sys.modules["sounddevice"]._exit_handler)      # it would wait for the driver, too


def capture_blocks(found, done, sr, device):
    """Put a microphone's samples into a queue, (S,) at a time, until `done`, then the Device, or why there is none."""
    try:
        sounddevice, chosen = portaudio(), find_device(device)
        try:
            stream = sounddevice.InputStream(
                sr, round(sr * BLOCK_SECONDS), chosen.number, 1, "float32",
                callback=lambda block, *_: found.put(block[:, 0].copy()), finished_callback=lambda: found.put(chosen))
            stream.start()
        except sounddevice.PortAudioError as error:
            raise InputError(f"microphone {chosen.number} {chosen.name} cannot record at {sr} Hz ({error.args[0]}): "
                             "choose another with --device, --list_devices True names them",
                             f"{chosen.name} cannot record at {sr} Hz ({error.args[0]}): choose another microphone"
                             ) from error
        done.wait()
        stream.abort()
        stream.close()
    except Exception as error:      # it is raised in the thread that waits for the samples
        found.put(error)


def deliver(found, cancelled, lost):
    """Yield the blocks of a queue; raise what is in it instead of one. A Device there was lost."""
    heard = time.monotonic()
    while True:
        if cancelled and cancelled():
            raise InputError(f"cancelled: {lost}")
        try:
            block = found.get(timeout=BLOCK_SECONDS)
        except queue.Empty:
            if time.monotonic() - heard > PATIENCE_SECONDS:
                problem = (f"the microphone delivered nothing for {PATIENCE_SECONDS:g} s: is it muted, or taken by "
                           "another program?")
                raise InputError(f"{problem} --list_devices True names the others",
                                 f"{problem} Choose another one above") from None
            continue
        if isinstance(block, Exception):
            raise block
        if isinstance(block, Device):
            raise InputError(f"microphone {block.number} {block.name} was lost: {lost}")
        heard = time.monotonic()
        yield block


# ---- enrolments and probes --------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Enrolled:
    """A speaker in --enroll_path: number of recordings, seconds of speech, None of audio that is not read yet."""

    name: str
    recordings: int
    seconds: float | None


def list_enrolled(config):
    """Return the enrolled speakers, a list of Enrolled, in the order of their names."""
    if not pathlib.Path(config.enroll_path).exists():
        return []
    return [read_enrolled(*source) for source in sorted(verification.find_enrolments(config.enroll_path).items())]


def read_enrolled(name, files):
    """Return the Enrolled of a speaker's files, recordings or one of features, which may be gone."""
    if files[0].suffix != ".npy":
        return Enrolled(name, len(files), None)
    utterances = (readable_record(files[0]) or {}).get("utterances", [])
    return Enrolled(name, len(utterances), sum(entry["speech_seconds"] for entry in utterances))


def folder_lock(folder):
    """Return a lock on a folder of enrolments, which several programs may add to; it makes the folder."""
    return filelock.FileLock(private_folder(folder) / ".lock", mode=0o600)


def enroll(config, speaker, wave, source=listening.MICROPHONE):
    """Add a recording to a speaker's enrolment, or start it over with config.replace.

    Parameters
    ----------
    config : argparse.Namespace
        The feature flags, enroll_path, min_speech, replace, keep_recording and raw_path.
    speaker : str
    wave : np.ndarray, shape (S,)
        At config.sr.
    source : str
        Where it comes from, kept in the description.

    Returns
    -------
    Path
        Of the speaker's features, <enroll_path>/<speaker>.npy.

    Raises
    ------
    InputError
        If the name cannot be one, `listening.check_recording` refuses it, it is there already, or has other features.
    """
    name = features.speaker_name(speaker)
    segments, known = listening.check_recording(wave, config, source)
    path = pathlib.Path(config.enroll_path, f"{name}.npy")
    with folder_lock(config.enroll_path), interrupts_later():
        old = read_enrolment(path, config)
        utterances = [] if config.replace else old["utterances"]
        parts = [features.open_features(path, mmap_mode=None)[:old["segments"]]] if utterances else []
        if any(np.array_equal(parts[0][own["first"]:own["first"] + own["count"]], segments) for own in utterances):
            raise InputError(f"this recording of {name} is enrolled already: add another one")
        entry = {"file": f"{datetime.datetime.now():%Y%m%d-%H%M%S-%f}", "source": str(source), "dropped": "",
                 "first": sum(map(len, parts)), "count": len(segments), **known}
        record = {"speaker": name, "segments": entry["first"] + len(segments), "utterances": [*utterances, entry],
                  "settings": features.feature_settings(config), "recordings": old["recordings"]}
        with keep_recording(config, record, wave) if config.keep_recording else contextlib.nullcontext():
            features.write_features(path.parent, record, [*parts, segments], private=True)
    return path


def read_enrolment(path, config):
    """Return the description of a speaker's enrolment, empty if there is none; InputError if it does not fit."""
    record = readable_record(path) if config.replace else features.read_record(path)[0]
    if (folder := path.with_suffix("")).is_dir() and audio.audio_files(folder)[0]:
        raise InputError(f"{folder} holds recordings of {path.stem}: add to them, or choose another name")
    if record is None and not path.exists():
        return {"utterances": [], "recordings": []}

    def misfit(problem):
        return InputError(f"{problem}: --replace True starts it over",
                          f"{problem}: forget this speaker, and enrol again")

    if record is None or not {"recordings", "speaker", "segments", "settings"} <= record.keys():
        if config.replace:
            return {"utterances": [], "recordings": kept_recordings(config, path, record)}
        raise misfit(f"{path} was not made by record.py")
    if record["speaker"] != path.stem:
        raise InputError(f"{path} is {record['speaker']}'s here: choose a name that differs in more than capitals")
    if config.replace:
        return record
    settings = configuration.with_later_flags(record["settings"])
    features.check_mode(settings, features.feature_settings(config), path)
    for name, value in features.feature_settings(config).items():
        if settings.get(name) != value:
            theirs, ours = map(configuration.spelled, (settings.get(name), value))
            raise misfit(f"{path} was made with --{name} {theirs}, the model has {ours}")
    if len(features.open_features(path)) < record["segments"]:      # more: another one was being added, and killed
        raise misfit(f"{path} and the .json beside it do not belong together")
    return record


def check_enrolment(config, speaker):
    """Raise InputError where nothing could be added to a speaker's enrolment, before anybody speaks."""
    check_target("enroll_path", config.enroll_path, f"{speaker}.npy")
    check_apart(config, "verify_path")
    if config.keep_recording:
        check_target("raw_path", config.raw_path, f"{speaker}/recording.wav")
        check_apart(config, "raw_path")
    read_enrolment(pathlib.Path(config.enroll_path, f"{speaker}.npy"), config)


def check_probe(config):
    """Raise InputError where a probe could not be kept, or would pass for an enrolment, before anybody speaks."""
    check_target("verify_path", config.verify_path, "probe.npy")
    check_apart(config, "verify_path")


def check_apart(config, name):
    """Raise InputError where a flag's folder is, or is in, that of the enrolments: whoever is in there is enrolled."""
    place, enrolled = getattr(config, name), pathlib.Path(config.enroll_path).resolve()
    if pathlib.Path(place).resolve().is_relative_to(enrolled):
        raise InputError(f"--{name} is {place}: that is --enroll_path, or in it; name another folder",
                         f"{place} is the folder of the enrolments, or in it.")


def readable_record(path):
    """Return the description beside a feature file; None where it is missing or damaged."""
    try:
        return features.read_record(path)[0]
    except InputError:
        return None


def kept_recordings(config, path, record):
    """Return the paths of a speaker's kept recordings, from the record, else those in config.raw_path named by us."""
    place = pathlib.Path(config.raw_path).absolute()
    if record is not None and "recordings" in record:           # the project may have been moved since
        return [there if os.path.exists(there) else str(place.joinpath(*pathlib.PurePath(there).parts[-2:]))
                for there in record["recordings"]]
    paths = sorted((place / path.stem).glob("*.wav"))
    return [str(path) for path in paths if RECORDING_NAME.fullmatch(path.stem)]


@contextlib.contextmanager
def keep_recording(config, record, wave):
    """Write an enrolment's last recording as 16-bit WAV below config.raw_path; it goes again where the rest fails."""
    folder = private_folder(pathlib.Path(config.raw_path, record["speaker"])).absolute()
    path = folder / f"{record['utterances'][-1]['file']}.wav"
    samples = np.clip(np.round(wave * 2**15), -2**15, 2**15 - 1).astype(np.int16)     # libsndfile would scale by 32767
    write_whole(path, lambda file: file.write(common.wav_bytes(samples, config.sr)), private=True)
    record["recordings"].append(str(path))
    try:
        yield
    except BaseException:
        path.unlink()               # nobody would find it again
        raise


def save_probe(config, wave, source=listening.MICROPHONE):
    """Check a recording (S,) and make it the probe in config.verify_path, in place of the last.

    Returns it as verification.Verifier.read yields recordings: what was heard is judged, not what another program may
    have put into the probe's file by then.
    """
    segments, known = listening.check_recording(wave, config, source)
    entry = {"file": "probe", "source": str(source), "first": 0, "count": len(segments), "dropped": "", **known}
    record = {"speaker": "probe", "segments": len(segments), "settings": features.feature_settings(config),
              "utterances": [entry]}
    with folder_lock(config.verify_path):
        features.write_features(config.verify_path, record, [segments], private=True)
    return "probe", segments, entry


def forget(config, speaker):
    """Delete a speaker's enrolment and the recordings kept of it; return the paths, InputError if there are none."""
    name = features.speaker_name(speaker)
    path = pathlib.Path(config.enroll_path, f"{name}.npy")
    with folder_lock(config.enroll_path) if path.parent.exists() else contextlib.nullcontext():
        record = readable_record(path)
        names = {name, (record or {}).get("speaker", name)}         # somebody may have renamed the enrolment
        kept = map(pathlib.Path, kept_recordings(config, path, record))
        kept = [path for path in kept if path.parent.name in names and path.suffix == ".wav"
                and RECORDING_NAME.fullmatch(path.stem)]            # no others
        paths = [path for path in (*kept, path, path.with_suffix(".json")) if path.exists()]
        if not paths:
            names = ", ".join(entry.name for entry in list_enrolled(config)) or "nobody"
            if path.with_suffix("").is_dir():
                raise InputError(f"{path.with_suffix('')} holds recordings of yours: delete them yourself")
            raise InputError(f"--speaker is {name}: {config.enroll_path} has {names}", f"{name} is not enrolled.")
        for path in paths:
            path.unlink()
            with contextlib.suppress(OSError):       # its folder is not empty
                path.parent.rmdir()
    return paths


# ---- the command line -------------------------------------------------------------------------------------------

def get_recording(config, what):
    """Return the recording (S,) that --input names, or one from the microphone with a level meter, and its source."""
    if config.input:
        return listening.load_sound(config.input, config.sr), config.input
    invitation = [f"recording {config.seconds:g} s, {what}: speak now (Ctrl-C cancels)"]
    with open(os.dup(2), "w", encoding="utf-8") as terminal:            # `record` silences descriptor 2 itself

        def on_level(level, seconds_left):
            while invitation:               # the microphone works: this is its first sound
                print(invitation.pop(), file=terminal, flush=True)
            if terminal.isatty():
                print(listening.meter_line(level, seconds_left), end="", file=terminal, flush=True)

        return record(config.seconds, config.sr, config.device, on_level), listening.MICROPHONE


def input_notes(config):
    """Return notes on what --input names."""
    return audio.bandwidth_notes(config.input, config.sr) if config.input else []


def work(config):
    """List microphones, forget a speaker, enrol one, or verify a probe, as the flags say."""
    if config.list_devices:
        print(*(f"{device.number:3} {device.name} ({device.rate:g} Hz){' (default)' * device.default}"
                for device in devices()), sep="\n")
        return 0
    if config.forget:
        print(*(f"deleted: {path}" for path in forget(config, config.speaker)), sep="\n")
        return 0
    embedding.choose_model(config)
    embedding.adopt_model(config)
    if config.verify:
        return verify_recording(config)
    if config.live:
        return follow_speakers(config)
    name = features.speaker_name(config.speaker)
    check_enrolment(config, name)
    for note in input_notes(config):
        print("note:", note, file=sys.stderr)
    path = enroll(config, name, *get_recording(config, f"an enrolment of {name}"))
    total = read_enrolled(name, [path])
    print(f"{path}: {total.recordings} recording{'s' * (total.recordings != 1)}, {total.seconds:.1f} s of speech")
    return 0


def verify_recording(config):
    """Record a probe, print the verdict on it and return the exit code.

    What would leave no verdict is said before anybody speaks; the enrolments are embedded while the microphone records.
    """
    speaker = config.speaker if "speaker" in config.given else None
    sources = verification.enrolment_sources(config.enroll_path, speaker)
    verifier = verification.Verifier(config)
    verifier.notes += input_notes(config)
    check_probe(config)
    if config.live:
        return verify_live(verifier)
    for path in (files[0] for files in sources.values() if files[0].suffix == ".npy"):
        verifier.open_features(path)
    with ThreadPoolExecutor(1) as background:
        voices = background.submit(verification.Enrolments(verifier).voices)
        probe = save_probe(config, *get_recording(config, "the probe"))
    return verification.print_verdicts(verifier, voices.result(), probe)


def verify_live(verifier):
    """Record a probe until the verdict is sure, print it and return the exit code."""
    config, enrolments = verifier.config, verification.Enrolments(verifier)
    with nothing_saved(), live_blocks(config, "the probe", "nothing was saved") as (coming, line):
        wave = listening.hear_probe(verifier, enrolments, coming, line)
    probe = save_probe(config, wave, config.input or listening.MICROPHONE)
    return verification.print_verdicts(verifier, enrolments.voices(), probe)


def follow_speakers(config):
    """Say who speaks until it is stopped; keep that as --timeline."""
    verifier, moments, due = verification.Verifier(config), [], SAVE_SECONDS
    verifier.notes += input_notes(config)
    enrolments = verification.Enrolments(verifier)
    conversation = listening.Conversation(verifier, enrolments.voices())
    verification.print_losses(conversation.voices)
    verification.print_notes(verifier)
    if config.timeline:
        check_target("timeline", config.timeline)
        listening.check_moments_path(config.timeline, config)
    try:
        with live_blocks(config, "who speaks", "it hears no more") as (coming, line):
            for moment in listening.follow(conversation, enrolments, coming, line):
                moments.append(moment)
                if config.timeline and moment.seconds >= due:           # a closed terminal may end it at any moment
                    listening.write_moments(config.timeline, moments)
                    due = moment.seconds + SAVE_SECONDS
    except KeyboardInterrupt:               # it has no other end
        pass
    finally:
        if config.timeline and moments:
            listening.write_moments(config.timeline, moments)
            print(f"{config.timeline}: {len(moments)} lines")
    if config.input and not moments:
        raise InputError(f"--input is {config.input}: it is too short to tell who speaks")
    return 0


@contextlib.contextmanager
def live_blocks(config, what, lost):
    """Give an iterator over blocks of samples (S,), and the terminal's line that shows what is heard in them.

    They are those of --input, at once, or of the microphone as they come, up to --seconds; where nothing is verified it
    has no end, unless --seconds was typed.
    """
    with open(os.dup(2), "w", encoding="utf-8") as terminal, contextlib.ExitStack() as after:
        line = listening.LivingLine(terminal)               # `blocks` silences descriptor 2 itself
        after.callback(line.clear)
        if config.input:
            wave, length = get_recording(config, what)[0], round(BLOCK_SECONDS * config.sr)
            yield iter(np.split(wave, range(length, len(wave), length))), line
            return
        seconds = config.seconds if config.verify or "seconds" in config.given else math.inf
        coming = after.enter_context(contextlib.closing(blocks(config.sr, config.device, lost=lost)))
        first = next(coming)
        line.say(f"listening, {what}: speak now (Ctrl-C {'cancels' if config.verify else 'ends it'})")
        yield listening.up_to(seconds * config.sr, itertools.chain([first], coming)), line


def main(argv=None):
    """Run the command line; return the exit code."""
    return configuration.run(work, argv, "record", __doc__)


if __name__ == "__main__":
    sys.exit(main())
