"""Audio of every kind in, voiced speech and segments out; what cannot be read is refused."""
import os
import pathlib
import subprocess
import sys

import librosa
import numpy as np
import pytest
import soundfile
import threadpoolctl

import audio
import configuration
import protocol
from common import InputError


def tone(seconds, sr=16000, frequency=440.0):
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * sr)) / sr)).astype(np.float32)


ROOT = pathlib.Path(audio.__file__).parent
CONFIG = configuration.get_config([])
BARE = configuration.get_config(["--level", "none", "--floor_db", "none"])          # as before these flags were


VOICE = {"sr": 8000, "window": 0.025, "hop": 0.01, "top_db": 30.0}


def test_a_link_upwards_gives_no_recording_twice(tmp_path):
    (tmp_path / "anna" / "day").mkdir(parents=True)
    for name in ("1.wav", "day/2.wav"):
        soundfile.write(tmp_path / "anna" / name, tone(1), 16000)
    (tmp_path / "anna" / "again").symlink_to(tmp_path / "anna")
    (tmp_path / "anna" / "same").symlink_to(tmp_path / "anna" / "day")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "3.wav").touch()
    (tmp_path / "anna" / "far").symlink_to(tmp_path / "elsewhere")
    assert audio.audio_files(tmp_path / "anna")[0] == ["1.wav", "day/2.wav", "far/3.wav"]


@pytest.mark.parametrize(("name", "options"), [
    ("a.wav", {"subtype": "PCM_U8"}), ("a.WAV", {"subtype": "PCM_16", "format": "WAV"}),
    ("a.wav", {"subtype": "PCM_24"}), ("a.wav", {"subtype": "PCM_32"}), ("a.wav", {"subtype": "FLOAT"}),
    ("a.wav", {"subtype": "ULAW"}),
    ("a.flac", {}), ("a.ogg", {"subtype": "VORBIS"}), ("a.opus", {"subtype": "OPUS", "format": "OGG"}), ("a.mp3", {}),
    ("a.aiff", {}), ("a.au", {}), ("a.aif", {"format": "AIFF"}), ("a.snd", {"format": "AU"}),
    ("a.oga", {"subtype": "VORBIS", "format": "OGG"}), ("a.wave", {"format": "WAV"}), ("a.sph", {"format": "NIST"})])
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (48000, 2)])
def test_every_format_becomes_the_same_tone(tmp_path, name, options, rate, channels):
    soundfile.write(tmp_path / name, np.repeat(tone(1.5, rate)[:, None], channels, axis=1), rate, **options)
    assert audio.audio_files(tmp_path) == ([name], {})
    wave = audio.load_audio(tmp_path / name, 8000)
    assert wave.dtype == np.float32
    assert abs(len(wave) - 12000) <= 1
    middle = wave[4000:8000]
    strength = np.abs(middle @ np.exp(2j * np.pi * 440 * np.arange(4000) / 8000)) / 2000   # of the 440 Hz in it
    assert strength == pytest.approx(0.5, rel=0.05)
    assert np.std(middle) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)                     # and nothing else


def test_a_format_that_cannot_be_wound_is_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(1.5, 8000), 8000, "GSM610")
    wave = audio.load_audio(tmp_path / "a.wav", 8000)
    assert len(wave) == pytest.approx(12000, abs=320)
    assert np.std(wave[4000:8000]) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)


@pytest.mark.parametrize("blocks", [50, 51])
def test_a_whole_recording_of_an_answering_machine_is_whole(tmp_path, blocks):
    """Blocks are of 65 bytes: an odd number has a byte behind it, which libsndfile takes for a cut."""
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(320 * blocks / 8000, 8000), 8000, "GSM610")
    assert len(audio.load_audio(path, 8000)) == pytest.approx(320 * blocks, abs=640)
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(InputError, match="cut short"):
        audio.load_audio(path, 8000)


def test_channels_are_averaged(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.stack([np.full(800, 0.5), np.full(800, -0.25)], axis=1), 8000, "FLOAT")
    np.testing.assert_allclose(audio.load_audio(tmp_path / "a.wav", 8000), 0.125)


@pytest.mark.parametrize("options", [
    {"file": "a.wav", "subtype": "PCM_16"}, {"file": "a.wav", "subtype": "FLOAT"}, {"file": "a.flac"},
    {"file": "a.ogg", "subtype": "VORBIS"}, {"file": "a.ogg", "subtype": "OPUS"}, {"file": "a.mp3"},
    {"file": "a.aiff"}, {"file": "a.au"}, {"file": "a.caf", "subtype": "PCM_16"}, {"file": "a.sph", "format": "NIST"},
    {"file": "a.wav", "format": "RF64"}, {"file": "a.w64"}, {"file": "a.voc"}])
@pytest.mark.parametrize("kept", [0.6, 0.95])
def test_a_truncated_file_is_refused_and_the_whole_one_is_not(tmp_path, monkeypatch, options, kept):
    monkeypatch.chdir(tmp_path)
    noise = 0.1 * np.random.default_rng(0).standard_normal(48000)
    soundfile.write(**options, data=noise, samplerate=16000)
    assert len(audio.load_audio(options["file"], 16000)) == 48000
    path = pathlib.Path(options["file"])
    path.write_bytes(path.read_bytes()[:int(kept * path.stat().st_size)])
    with pytest.raises(InputError, match=r"is cut short|cannot be read"):
        audio.load_audio(path, 16000)


@pytest.mark.parametrize("length", [b"\xff\xff\xff\xff", b"\x00\xf0\xff\x7f"])   # ffmpeg and SoX, to a pipe
def test_a_wav_of_open_length_is_read(tmp_path, length):
    soundfile.write(tmp_path / "a.wav", tone(1), 16000, "PCM_16")
    raw = bytearray((tmp_path / "a.wav").read_bytes())
    raw[4:8] = raw[40:44] = length
    (tmp_path / "a.wav").write_bytes(raw)
    assert len(audio.load_audio(tmp_path / "a.wav", 16000)) == 16000


def test_a_flac_of_open_length_is_read(tmp_path):
    soundfile.write(tmp_path / "a.flac", tone(1), 16000)
    raw = bytearray((tmp_path / "a.flac").read_bytes())
    raw[21] &= 0xF0                                                # the 36 bits of its number of samples: 0, unknown
    raw[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(raw)
    np.testing.assert_allclose(audio.load_audio(tmp_path / "a.flac", 16000), tone(1), atol=1e-4)
    (tmp_path / "a.flac").write_bytes(raw[:int(0.6 * len(raw))])
    with pytest.raises(InputError, match="is cut short"):
        audio.load_audio(tmp_path / "a.flac", 16000)


@pytest.mark.parametrize(("content", "words"), [
    (b"", "cannot be read"), (b"not audio at all", "cannot be read")])
def test_what_is_no_audio_is_refused(tmp_path, content, words):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(InputError, match=words):
        audio.load_audio(tmp_path / "a.wav", 8000)


@pytest.mark.parametrize(("wave", "words"), [
    (np.zeros(0, np.float32), "is empty"), (np.array([0.1, np.nan], np.float32), "not finite"),
    (np.full((100, 2), 3e38, np.float32), "not finite")])
def test_empty_and_not_finite_audio_is_refused(tmp_path, wave, words):
    soundfile.write(tmp_path / "a.wav", wave, 8000, "FLOAT")
    with pytest.raises(InputError, match=words):
        audio.load_audio(tmp_path / "a.wav", 8000)


def test_samples_without_a_header_are_refused(tmp_path):
    (tmp_path / "a.raw").write_bytes(bytes(1000))
    with pytest.raises(InputError, match=r"a\.raw cannot be read: "):
        audio.load_audio(tmp_path / "a.raw", 8000)


def test_a_rate_that_only_damage_gives_is_refused(tmp_path):
    """A second at 16 kHz that a header calls 16,000 s at 1 Hz would become 256,000,000 samples."""
    soundfile.write(tmp_path / "a.wav", tone(1), 1, "PCM_16")
    with pytest.raises(InputError, match="is damaged: its sampling rate is 1 Hz"):
        audio.load_audio(tmp_path / "a.wav", 16000)


def test_voiced_stretches_are_joined():
    gap = np.zeros(8000, np.float32)
    wave = np.concatenate([gap, tone(0.4, 8000), gap, tone(0.3, 8000), gap])
    speech = audio.voiced(wave, **VOICE)
    assert 0.70 <= len(speech) / 8000 <= 0.80                      # 0.7 s and the edges of a frame
    assert np.abs(speech).max() == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize("gain", [1.0, 1e-3, 3e-4])                # -36 to -96 dB, where librosa's levels end at -100
def test_the_level_of_a_recording_does_not_matter(gain):
    quiet = np.zeros(8000, np.float32)
    wave = gain * np.concatenate([quiet, tone(0.7, 8000), quiet])
    assert 0.70 <= len(audio.voiced(wave, **VOICE)) / 8000 <= 0.76


def test_the_detector_is_librosas_with_our_frames(voice):
    wave = audio.load_audio(voice / "00.wav", 8000)
    stretches = librosa.effects.split(wave, top_db=12, frame_length=200, hop_length=80)
    expected = np.concatenate([wave[start:end] for start, end in stretches])
    assert len(stretches) > 1
    np.testing.assert_array_equal(audio.voiced(wave, **VOICE | {"top_db": 12}), expected)


@pytest.mark.parametrize(("samples", "sr", "window", "hop"), [
    (8000, 8000, 0.025, 0.01), (7919, 16000, 0.025, 0.01), (12345, 11025, 0.025, 0.01), (99, 8000, 0.025, 0.01),
    (5000, 44100, 0.0231, 0.0113)])
def test_levels_of_frames_are_librosas(samples, sr, window, hop):
    wave = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    wave *= np.where(np.arange(samples) % 3000 < 1500, 1, 1e-4)
    rms = librosa.feature.rms(y=wave, frame_length=round(window * sr), hop_length=round(hop * sr))[0]
    found = audio.frame_levels(wave, sr=sr, window=window, hop=hop)
    np.testing.assert_allclose(found, 20 * np.log10(rms), atol=1e-4)


def test_the_noise_floor_is_a_level_of_full_scale():
    wave = np.concatenate([np.full(2000, 1e-3), tone(1, 8000)]).astype(np.float32)
    assert audio.speech_and_noise(wave, **VOICE)[1] == pytest.approx(-60, abs=0.01)
    assert audio.speech_and_noise(np.float32(1e-3) * wave, **VOICE)[1] == audio.QUIET_DB


@pytest.mark.parametrize("wave", [np.zeros(8000), np.zeros(0), np.full(8000, 3e-5)])
def test_silence_holds_no_speech(wave):
    assert len(audio.voiced(wave.astype(np.float32), **VOICE)) == 0
    assert audio.segments(wave.astype(np.float32), CONFIG).shape == (0, 40, 180)


@pytest.mark.parametrize("nfft", [512, 401])
@pytest.mark.parametrize("samples", [512, 8000, 12345])
def test_log_mel_is_librosas(samples, nfft):
    wave = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    found = audio.log_mel(wave, sr=8000, nfft=nfft, window=0.025, hop=0.01)
    mel = librosa.feature.melspectrogram(y=wave, sr=8000, n_fft=nfft, win_length=200, hop_length=80, n_mels=40,
                                         power=2.0, center=True, pad_mode="constant")
    assert found.dtype == np.float32
    assert found.shape == (1 + samples // 80, 40)
    mel = mel[:, :len(found)]                                      # librosa has one frame less for an odd nfft
    found = found[:mel.shape[1]]
    np.testing.assert_allclose(found, np.log10(mel + 1e-6).T, atol=1e-4)


def test_a_single_sample_is_one_frame():
    found = audio.log_mel(np.ones(1, np.float32), sr=8000, nfft=512, window=0.025, hop=0.01)
    assert found.shape == (1, 40)
    assert np.isfinite(found).all()


def test_long_audio_is_transformed_in_blocks(monkeypatch):
    wave = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    whole = audio.log_mel(wave, sr=8000, nfft=512, window=0.025, hop=0.01)
    monkeypatch.setattr(audio, "STFT_BLOCK", 7)
    in_blocks = audio.log_mel(wave, sr=8000, nfft=512, window=0.025, hop=0.01)
    np.testing.assert_allclose(in_blocks, whole, atol=1e-5)


@pytest.mark.parametrize(("frames", "starts"), [
    (180, [0]), (181, [0, 1]), (260, [0, 80]), (300, [0, 80, 120]), (341, [0, 80, 160, 161])])
def test_segments_start_every_80_frames_and_end_at_the_end(frames, starts):
    cuts = audio.cut_segments(np.tile(np.arange(frames)[:, None], (1, 40)), 180)
    assert cuts.shape == (len(starts), 40, 180)
    assert cuts[:, 0, 0].tolist() == starts
    assert cuts[-1, 0, -1] == frames - 1
    assert (np.diff(cuts, axis=2) == 1).all()


def test_a_short_utterance_is_repeated():
    cuts = audio.cut_segments(np.tile(np.arange(70)[:, None], (1, 40)), 180)
    assert cuts.shape == (1, 40, 180)
    assert cuts[0, 7].tolist() == [*range(70), *range(70), *range(40)]


@pytest.mark.parametrize(("seconds", "segments"), [(0.45, 0), (0.55, 1), (1.7, 1), (3.0, 3)])
def test_half_a_second_of_speech_is_enough(seconds, segments):
    assert audio.segments(tone(seconds, 8000), CONFIG).shape == (segments, 40, 180)


def test_recordings_are_found_at_any_depth(tmp_path):
    home = tmp_path / "id10001"
    for path in ("video/00001.wav", "1-2/deep/2.FLAC", "0.ogg"):
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).touch()
    (home / "words.txt").touch()
    (home / "video.m4a").touch()
    (home / "notes.pdf").touch()
    (home / ".hidden.wav").touch()
    (home / ".Trash").mkdir()
    (home / ".Trash" / "old.wav").touch()
    files, others = audio.audio_files(home)
    assert files == ["0.ogg", "1-2/deep/2.FLAC", "video.m4a", "video/00001.wav"]
    assert others == {".txt": 1, ".pdf": 1}


def test_noise_is_steady_and_speech_is_not(corpus):
    flags = configuration.get_config([])
    noise = np.random.default_rng(0).standard_normal(24000).astype(np.float32)
    assert audio.is_steady(audio.segments(noise, flags))
    recordings = sorted((corpus / "test").rglob("*.wav"))
    assert len(recordings) == 18
    for path in recordings:
        assert not audio.is_steady(audio.segments(audio.load_audio(path, 8000), flags))


def test_segments_are_joined_to_the_frames_they_were_cut_from():
    rng = np.random.default_rng(0)
    for total in (50, 180, 181, 260, 399, 400):
        frames = rng.standard_normal((total, 40)).astype(np.float32)
        np.testing.assert_array_equal(protocol.frames_of(audio.cut_segments(frames, 180), total), frames)


# ---- librosa, deferred ------------------------------------------------------------------------------------------

def in_a_new_process(code, **environment):
    """Run code in a process of its own; return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False,
                          env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_reading_a_recording_loads_neither_numba_nor_scikit_learn(tmp_path):
    sounds = 0.1 * np.random.default_rng(0).standard_normal((16000, 2))
    soundfile.write(tmp_path / "a.flac", sounds, 16000)
    code = f"""
import sys, audio, configuration
cuts, known = audio.read_utterance({str(tmp_path / "a.flac")!r}, configuration.get_config(["--sr", "8000"]))
print(len(cuts), known["speech_seconds"])
print(sorted({{"numba", "sklearn", "scipy.signal", "scipy.stats", "matplotlib", "tensorflow"}} & set(sys.modules)))
"""
    assert in_a_new_process(code) == "1 1.0\n[]\n"


@pytest.mark.parametrize("before", ["", "import numba, sklearn.cluster, scipy.signal", "import librosa; librosa.stft"])
def test_all_of_librosa_works_once_it_is_used(before, tmp_path_factory):
    """What was deferred is the real thing: the same figures as librosa gives where nobody defers.

    Tests that run side by side have a cache of numba each: two processes that fill one at the same time may spoil it
    for good, and who then calls librosa.beat dies of SIGSEGV (numba's issue 10128).
    """
    cache = str(tmp_path_factory.getbasetemp() / "numba")       # one for each process that runs tests
    code = f"""
{before}
import numpy as np
DEFER
wave = np.sin(0.2 * np.arange(8000)) * np.where(np.arange(8000) % 2000 < 1000, 1, 0.1)
print(librosa.zero_crossings(wave).sum(), librosa.pyin(wave, fmin=100, fmax=600, sr=8000)[0][4].round(3))
print(librosa.effects.hpss(wave)[0].std().round(6), librosa.feature.mfcc(y=wave, sr=8000).sum().round(2))
print(librosa.beat.beat_track(y=wave, sr=8000)[0], librosa.util.localmax(wave).sum())
print(librosa.sequence.dtw(wave[None, :50], wave[None, 20:80])[0][-1, -1].round(4))
print(librosa.decompose.decompose(np.abs(librosa.stft(wave)), n_components=2)[0].shape)
print(librosa.segment.agglomerative(librosa.feature.mfcc(y=wave, sr=8000), 3))
"""
    plain = in_a_new_process(code.replace("DEFER", "import librosa"), NUMBA_CACHE_DIR=cache)
    deferred = in_a_new_process(code.replace("DEFER", "import audio; librosa = audio.librosa; librosa.effects"),
                                NUMBA_CACHE_DIR=cache)
    assert len(plain.splitlines()) == 6
    assert deferred == plain


def test_threads_may_load_librosa_at_once():
    code = """
import threading, numpy as np, audio
wave, found = np.sin(np.arange(16000)).astype("f"), []
def hear():
    found.append(len(audio.voiced(audio.librosa.resample(wave, orig_sr=16000, target_sr=8000), sr=8000, window=0.025,
                                  hop=0.01, top_db=30)))
threads = [threading.Thread(target=hear) for _ in range(8)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
print(found)
"""
    assert in_a_new_process(code) == f"{[8000] * 8}\n"


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_that_lacks_just_its_last_page_is_refused(tmp_path, subtype):
    soundfile.write(tmp_path / "a.ogg", 0.1 * np.random.default_rng(0).standard_normal(48000), 16000, subtype)
    raw = (tmp_path / "a.ogg").read_bytes()
    (tmp_path / "a.ogg").write_bytes(raw[:raw.rindex(b"OggS")])
    with pytest.raises(InputError, match="is cut short: its end is missing"):
        audio.load_audio(tmp_path / "a.ogg", 16000)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_with_a_hole_or_a_second_one_behind_it_is_refused(tmp_path, subtype):
    """A bit that is not what it was costs a page, wherever it is; libsndfile reads on behind it, and one of two."""
    soundfile.write(tmp_path / "a.ogg", 0.1 * np.random.default_rng(0).standard_normal(96000), 16000, subtype)
    raw = (tmp_path / "a.ogg").read_bytes()
    assert len(audio.load_audio(tmp_path / "a.ogg", 16000)) == 96000
    for place in np.linspace(0.1, 0.9, 9) * len(raw):
        (tmp_path / "a.ogg").write_bytes(raw[:int(place)] + bytes([raw[int(place)] ^ 4]) + raw[int(place) + 1:])
        with pytest.raises(InputError, match=r"is damaged|is cut short|cannot be read"):
            audio.load_audio(tmp_path / "a.ogg", 16000)
    (tmp_path / "a.ogg").write_bytes(raw + raw)
    with pytest.raises(InputError, match="several recordings one behind the other"):
        audio.load_audio(tmp_path / "a.ogg", 16000)


def test_a_web_page_by_the_name_of_mp3_is_no_format(tmp_path):
    (tmp_path / "a.mp3").write_text("<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n")
    with pytest.raises(InputError, match=r"a\.mp3 cannot be read: Format not recognised\."):
        audio.load_audio(tmp_path / "a.mp3", 16000)


def test_a_lower_rate_is_noted_and_the_models_own_is_not(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(0.1, 8000), 8000)
    (tmp_path / "b.wav").write_bytes(b"not audio at all")
    assert audio.bandwidth_notes(tmp_path / "a.wav", 8000) == []
    note, = audio.bandwidth_notes(tmp_path / "a.wav", 8001)
    assert "a.wav is at 8000 Hz, below the model's 8001 Hz" in note
    assert audio.bandwidth_notes(tmp_path / "b.wav", 8000) == audio.bandwidth_notes(tmp_path / "c.wav", 8000) == []


def test_the_level_is_that_of_a_root_mean_square():
    assert audio.level_db(np.array([0.5, -0.5])) == pytest.approx(-6.0206, abs=1e-4)
    assert audio.level_db(tone(1)) == pytest.approx(-9.0309, abs=1e-3)         # a sine of 0.5: 3 dB below
    assert audio.level_db(np.zeros(8)) == pytest.approx(-120)


def test_log_mel_depends_on_no_number_of_threads():
    """A dense product's sums do on some processors: two cores then make other features than one."""
    wave = np.random.default_rng(0).standard_normal(20000).astype(np.float32)
    made = []
    for threads in (1, 2, 3):
        with threadpoolctl.threadpool_limits(threads):
            made.append(audio.log_mel(wave, sr=8000, nfft=512, window=0.025, hop=0.01))
    np.testing.assert_array_equal(made[0], made[1])
    np.testing.assert_array_equal(made[0], made[2])


def test_log_mel_of_silence_is_minus_6():
    found = audio.log_mel(np.zeros(800, np.float32), sr=8000, nfft=512, window=0.025, hop=0.01)
    np.testing.assert_allclose(found, -6, atol=1e-5)


@pytest.mark.parametrize("sr", [8000, 16000])
def test_a_mel_channel_hears_its_centre_best(sr):
    peaks = librosa.filters.mel(sr=sr, n_fft=2**15, n_mels=40).argmax(axis=1) * sr / 2**15
    np.testing.assert_allclose(audio.mel_centres(sr), peaks, atol=sr / 2**15)


def test_a_recording_tells_its_seconds_and_those_of_speech(tmp_path):
    gap = np.zeros(8000, np.float32)
    soundfile.write(tmp_path / "a.wav", np.concatenate([gap, tone(0.7, 8000), gap]), 8000)
    cuts, entry = audio.read_utterance(tmp_path / "a.wav", CONFIG)
    assert cuts.shape == (1, 40, 180)
    assert entry["seconds"] == 2.7
    assert 0.7 <= entry["speech_seconds"] <= 0.76
    assert entry["dropped"] == ""
    (tmp_path / "b.wav").write_bytes(b"not audio at all")
    assert audio.read_utterance(tmp_path / "b.wav", CONFIG)[1]["dropped"].startswith("cannot be read: ")


def test_what_counts_as_speech_is_a_flag(tmp_path):
    """A tone, and one 40 dB below it, which 30 dB leave out and 50 dB take in."""
    wave = np.concatenate([tone(1, 8000), 0.01 * tone(1, 8000)])
    for top_db, seconds in ((30, 1), (50, 2)):
        config = configuration.get_config(["--top_db", str(top_db), "--floor_db", "none"])
        found = audio.speech_frames(wave, config)[1]["speech_seconds"]
        assert found == pytest.approx(seconds, abs=0.05)


def test_linked_folders_are_read_and_a_missing_one_is_an_error(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.wav").touch()
    (tmp_path / "speaker").mkdir()
    (tmp_path / "speaker" / "link").symlink_to(tmp_path / "elsewhere")
    assert audio.audio_files(tmp_path / "speaker")[0] == ["link/1.wav"]
    with pytest.raises(FileNotFoundError):                         # as a folder that must not be read would
        audio.audio_files(tmp_path / "nowhere")


def test_voiced_frames_equal_a_plain_loop():
    """A frame of 25 ms around each 10 ms is speech where it lies less than 30 dB below the loudest."""
    rng = np.random.default_rng(0)
    wave = (np.repeat(10 ** rng.uniform(-4, 0, 100), 80) * rng.uniform(-1, 1, 8000)).astype(np.float32)
    padded = np.pad(wave, 100)
    levels = np.array([10 * np.log10(np.mean(padded[start:start + 200] ** 2)) for start in range(0, 8001, 80)])
    kept = [wave[80 * frame:80 * frame + 80] for frame in np.flatnonzero(levels > levels.max() - 30)]
    assert 20 < len(kept) < 90
    np.testing.assert_array_equal(audio.voiced(wave, **VOICE), np.concatenate(kept))


@pytest.mark.parametrize(("decibels", "steady"), [(1.9, True), (2.1, False)])
def test_steady_is_a_deviation_below_2_db(decibels, steady):
    """Levels that lie this far above and below their mean, whatever each channel does."""
    levels = decibels / 10 * np.tile([1, -1], 90) + np.linspace(-5, 0, 40)[:, np.newaxis]
    assert audio.is_steady(levels[np.newaxis].astype(np.float32)) == steady


# ---- level, noise floor, what is known of a recording -----------------------------------------------------------

@pytest.mark.parametrize("decibels", [-20, -6, 6])
def test_the_level_of_a_recording_does_not_count(corpus, decibels):
    """Up to the rounding to 16 bits: quieter or louder, the segments are the same; with --level none they are not."""
    paths = sorted((corpus / "test").glob("*/0[0-2].wav"))
    assert len(paths) == 9
    for path in paths:
        wave = audio.load_audio(path, 8000)
        wave = 0.4 * wave / np.abs(wave).max()                      # 6 dB more do not clip
        other = np.round(wave * 10 ** (decibels / 20) * 2**15) / 2**15
        ours, theirs = audio.segments(wave, CONFIG), audio.segments(other.astype(np.float32), CONFIG)
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).mean() < 0.01
        assert np.abs(audio.segments(wave, BARE) - audio.segments(other.astype(np.float32), BARE)).mean() > 0.3


def test_the_speech_has_the_level_asked_for(corpus):
    wave = audio.load_audio(corpus / "test" / "voice08" / "00.wav", 8000)
    for level in (-26, -40):
        assert audio.level_db(audio.at_level(wave, level)) == pytest.approx(level, abs=1e-3)
    np.testing.assert_array_equal(audio.at_level(wave, None), wave)
    assert not audio.at_level(np.zeros(9, np.float32), -26).any()
    frames, _ = audio.speech_frames(wave, CONFIG)
    speech = audio.voiced(wave - wave.mean(), **VOICE, floor_db=3)
    speech = speech * 10 ** ((-26 - audio.level_db(speech)) / 20)
    np.testing.assert_allclose(frames, audio.log_mel(speech, sr=8000, nfft=512, window=0.025, hop=0.01), atol=1e-4)


def test_an_offset_of_the_sound_card_is_not_heard(corpus):
    """But by a model without --level, as the ancestors were."""
    wave = audio.load_audio(corpus / "test" / "voice08" / "00.wav", 8000)
    config = configuration.get_config(["--sr", "8000"])
    plain, known = audio.speech_segments(wave, config)
    for offset in (0.01, -0.2):
        heard, told = audio.speech_segments(wave + np.float32(offset), config)
        np.testing.assert_allclose(heard, plain, atol=1e-2)
        assert told == pytest.approx(known, abs=0.1)
    config.level = None
    plain, offset = (audio.speech_segments(wave + np.float32(offset), config)[0] for offset in (0, 0.01))
    assert plain.shape != offset.shape or np.abs(plain - offset).max() > 0.5
    assert not len(audio.speech_segments(np.full(8000, 0.1, np.float32), configuration.get_config([]))[0])


def bursts(noise_db, sr=8000):
    """Four tones of half a second at -9 dB, each after a pause of half a second, in noise at a level in dB."""
    pause = np.zeros(sr // 2, np.float32)
    wave = np.concatenate([part for _ in range(4) for part in (pause, tone(0.5, sr))])
    return wave + 10 ** (noise_db / 20) * np.random.default_rng(0).standard_normal(len(wave)).astype(np.float32)


@pytest.mark.parametrize(("noise_db", "without"), [(-80, 2.0), (-30, 4.0), (-20, 4.0)])
def test_the_detector_knows_the_noise_floor(noise_db, without):
    """With it, 2 s of tones are heard whatever the noise; without, all 4 s once the noise is within 30 dB."""
    found = [len(audio.voiced(bursts(noise_db), **VOICE, floor_db=floor)) / 8000 for floor in (3, None)]
    assert found[0] == pytest.approx(2.0, abs=0.2)
    assert found[1] == pytest.approx(without, abs=0.2)


def test_a_clean_recording_loses_nothing_to_the_floor(corpus):
    """Where the pauses lie 30 dB and more below the speech, the floor does not count."""
    assert len(audio.voiced(bursts(-80), **VOICE, floor_db=3)) == len(audio.voiced(bursts(-80), **VOICE))
    steady = 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    assert len(audio.voiced(steady, **VOICE, floor_db=3)) > 15000                   # what is_steady then refuses


@pytest.mark.parametrize("snr", [40, 30, 20, 10, 5])
def test_the_ratio_to_the_noise_is_estimated(snr):
    speech, noise = audio.speech_and_noise(bursts(-9 - snr), **VOICE, floor_db=3)
    assert audio.estimate_snr(audio.level_db(speech), noise) == pytest.approx(snr, abs=3)


def test_the_estimates_stay_in_their_range():
    known = audio.speech_frames(np.concatenate([np.zeros(8000, np.float32), tone(1, 8000)]), CONFIG)[1]
    assert known["snr"] == 50
    assert audio.speech_frames(tone(0.2, 8000), CONFIG)[1]["snr"] is None
    noise = 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    assert audio.SNR_RANGE[0] <= audio.speech_frames(noise, CONFIG)[1]["snr"] < 3


@pytest.mark.parametrize(("cutoff", "low", "high"), [(1500, 1400, 2400), (3400, 3300, 4600), (7900, 7600, 8000)])
def test_the_band_is_estimated(cutoff, low, high):
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(32000))
    spectrum[np.fft.rfftfreq(32000, 1 / 16000) > cutoff] = 0
    wave = (0.1 * np.fft.irfft(spectrum)).astype(np.float32)
    frames = audio.log_mel(wave, sr=16000, nfft=512, window=0.025, hop=0.01)
    assert low <= audio.estimate_bandwidth(frames, 16000) <= high
