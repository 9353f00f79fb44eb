"""Conditions: they are what they are asked to be, come out the same for the same seed, and move nothing."""
import importlib
import re
import sys
import tracemalloc

import numpy as np
import pytest
import scipy.signal
import soundfile

import audio
import conditions
from common import InputError

SR = 16000
KINDS = ("colour_noise", "hum", "babble", "recorded_noise")


@pytest.fixture(scope="module")
def wave(voice):
    """A synthetic voice before and after a second of silence, (S,) at 16 kHz."""
    return np.concatenate([audio.load_audio(voice / f"0{take}.wav", SR) for take in range(2)]
                          + [np.zeros(SR, np.float32)])


@pytest.fixture(scope="module")
def around(corpus, tmp_path_factory):
    """Surroundings: the synthetic voices, and two recordings of noise, one of them at another rate and short."""
    folder, rng = tmp_path_factory.mktemp("noises"), np.random.default_rng(0)
    soundfile.write(folder / "rain.wav", 0.1 * rng.standard_normal(SR * 6), SR)
    soundfile.write(folder / "tap.ogg", 0.1 * rng.standard_normal(11025), 22050)
    voices = tuple(str(path) for path in sorted((corpus / "train").iterdir()))
    return conditions.Surroundings(voices, conditions.find_noises(folder))


def decibels(power):
    return 10 * np.log10(power)


def test_there_is_a_condition_for_each_way_of_a_voice(around):
    assert len(around.conditions) == 19
    assert len(conditions.CONDITIONS) == 13
    for word in ("level", "white", "pink", "hum", "babble", "recorded", "room", "telephone", "opus", "mp3", "clipping"):
        assert any(name.startswith(word) for name in around.conditions)
    assert not any(name.startswith(("babble", "recorded")) for name in conditions.CONDITIONS)


@pytest.mark.parametrize("seed", range(2))
def test_the_same_seed_gives_the_same_samples_as_many_and_in_their_place(around, wave, seed):
    """In its place: the result lies nearest to the recording without a shift; a room's echoes come behind."""
    for name, condition in around.conditions.items():
        first = condition(wave, SR, np.random.default_rng(seed))
        assert (first.shape, first.dtype) == (wave.shape, np.float32)
        assert np.isfinite(first).all()
        np.testing.assert_array_equal(condition(wave, SR, np.random.default_rng(seed)), first)
        reach = 16 if name.startswith("room") else 0
        lags = scipy.signal.correlate(first, wave)[len(wave) - 1 - 800:len(wave) + 800]
        assert np.abs(lags[800 - 16:800 + 17 + reach]).max() > 0.5 * np.abs(lags).max(), name
        if not name.startswith("room"):
            assert int(np.argmax(np.abs(lags))) == 800, name


def test_another_seed_gives_other_samples(around, wave):
    drawn = [name for name, condition in around.conditions.items()
             if not np.array_equal(condition(wave, SR, np.random.default_rng(1)),
                                   condition(wave, SR, np.random.default_rng(2)))]
    assert set(around.conditions) - set(drawn) == {"level -20 dB", "telephone", "opus", "mp3", "clipping 10 %"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("snr", [0, 5, 20])
def test_the_ratio_is_that_of_the_voiced_speech_to_the_noise(around, wave, kind, snr):
    """By hand: the power of the voiced samples over that of all that was added; pauses do not count as speech."""
    more = {"babble": {"voices": around.voices}, "recorded_noise": {"files": around.noises}}.get(kind, {})
    noisy = getattr(conditions, kind)(wave, SR, np.random.default_rng(3), snr=snr, **more)
    speech = audio.voiced(wave, sr=SR, window=0.025, hop=0.01, top_db=30)
    assert len(speech) < 0.9 * len(wave)
    assert decibels(np.mean(speech ** 2) / np.mean((noisy - wave) ** 2)) == pytest.approx(snr, abs=0.2)


def test_a_short_noise_has_its_ratio_and_a_silent_part_is_none(wave, tmp_path):
    """A clip of a third of the voice's length, loud at one end; then 15 s of silence before 5 s of noise."""
    rng = np.random.default_rng(0)
    clip = rng.standard_normal(len(wave) // 3) * np.linspace(0.01, 0.3, len(wave) // 3)
    soundfile.write(tmp_path / "short.wav", clip, SR)
    soundfile.write(tmp_path / "late.wav", np.append(np.zeros(15 * SR), 0.1 * rng.standard_normal(5 * SR)), SR)
    speech = audio.voiced(wave, sr=SR, window=0.025, hop=0.01, top_db=30)
    for seed in range(12):
        noisy = [conditions.recorded_noise(wave, SR, np.random.default_rng(seed), files=[str(tmp_path / name)], snr=10)
                 for name in ("short.wav", "late.wav")]
        assert decibels(np.mean(speech ** 2) / np.mean((noisy[0] - wave) ** 2)) == pytest.approx(10, abs=0.01)
        assert not np.array_equal(noisy[1], wave)
    soundfile.write(tmp_path / "never.wav", np.zeros(20 * SR), SR)
    with pytest.raises(InputError, match=r"never\.wav is silent, or nearly everywhere: take it out"):
        conditions.recorded_noise(wave, SR, rng, files=[str(tmp_path / "never.wav")], snr=10)
    silence = np.zeros(SR, np.float32)
    assert conditions.recorded_noise(silence, SR, rng, files=[str(tmp_path / "late.wav")], snr=10) is silence


@pytest.mark.parametrize(("decay", "fall"), [(0.0, 0.0), (3.01, -3.01), (6.02, -6.02)])
def test_a_noise_has_its_colour(wave, decay, fall):
    noise = conditions.colour_noise(wave, SR, np.random.default_rng(0), snr=0, decay=decay) - wave
    frequencies, power = scipy.signal.welch(noise, SR, nperseg=1024)
    band = (frequencies > 200) & (frequencies < 6000)
    slope = np.polyfit(np.log2(frequencies[band]), decibels(power[band]), 1)[0]          # dB per octave
    assert slope == pytest.approx(fall, abs=0.5)


def test_a_hum_is_that_of_the_mains(wave):
    noise = conditions.hum(wave, SR, np.random.default_rng(0), snr=10) - wave
    spectrum = np.abs(np.fft.rfft(noise * np.hanning(len(noise))))
    loudest = np.argmax(spectrum) * SR / len(noise)
    assert min(abs(loudest - mains) for mains in (50, 60)) < 1.5
    assert decibels(np.sum(spectrum[:round(600 * len(noise) / SR)] ** 2) / np.sum(spectrum ** 2)) > -0.1


def test_a_hum_takes_the_memory_of_a_few_recordings(monkeypatch):
    """By hand: all harmonics at once, which take that of eight and more."""
    monkeypatch.setattr(conditions, "mix", lambda wave, noise, sr, snr: noise)
    tracemalloc.start()
    noise = conditions.hum(np.zeros(20 * SR), SR, np.random.default_rng(0), snr=10)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * noise.nbytes
    rng, time = np.random.default_rng(0), np.arange(20 * SR)[:, np.newaxis] / SR
    harmonics = rng.choice(conditions.HUMS) * rng.normal(1, 0.002) * np.arange(1, 9)
    phases, amplitudes = rng.uniform(0, 2 * np.pi, 8), rng.uniform(0.2, 1, 8) / np.arange(1, 9)
    np.testing.assert_allclose(noise, np.sin(2 * np.pi * time * harmonics + phases) @ amplitudes, atol=1e-9)


@pytest.mark.parametrize("rt60", [0.2, 0.4, 0.7, 1.0])
def test_a_room_has_its_reverberation_time(rt60):
    """Measured by hand: the slope of the response's backward integral (Schroeder 1965) between -5 and -25 dB."""
    for number in range(4):
        response = conditions.room_response(SR, rt60, number)
        decay = decibels(np.cumsum(response[::-1] ** 2)[::-1] / np.sum(response ** 2) + 1e-12)
        start, end = np.argmax(decay < -5), np.argmax(decay < -25)
        assert 3 * (end - start) / SR == pytest.approx(rt60, rel=0.25)
        assert response[0] == pytest.approx(1)                                       # the direct sound comes first


def test_a_room_keeps_the_level_and_rooms_differ(wave):
    heard = [conditions.room(wave, SR, np.random.default_rng(seed), rt60=0.5) for seed in range(3)]
    for one in heard:
        assert audio.level_db(one) == pytest.approx(audio.level_db(wave), abs=0.01)
    assert not np.array_equal(heard[0], heard[1])


def test_a_telephone_lets_its_band_pass(wave):
    noise = 0.1 * np.random.default_rng(0).standard_normal(4 * SR).astype(np.float32)
    for coding in ("ULAW", "ALAW", "GSM610"):
        frequencies, power = scipy.signal.welch(conditions.telephone(noise, SR, None, coding=coding), SR, nperseg=512)

        def band(low, high, frequencies=frequencies, power=power):
            return decibels(power[(frequencies >= low) & (frequencies < high)].mean())

        assert band(500, 3000) - band(4300, 8000) > 40
        assert band(500, 3000) - band(0, 120) > 10
    assert not np.allclose(conditions.telephone(wave, SR, None), conditions.telephone(wave, SR, None, coding="GSM610"))


def test_a_codec_loses_little_and_not_nothing(wave):
    for name in ("opus", "mp3"):
        coded = conditions.codec(wave, SR, None, name=name)
        assert 0.5 < np.corrcoef(coded, wave)[0, 1] < 0.9999


def test_clipping_and_level_by_hand(wave):
    for percent in (3, 10, 15):
        clipped = conditions.clipping(wave, SR, np.random.default_rng(0), percent=percent)
        assert np.mean(clipped >= clipped.max()) == pytest.approx(percent / 200, abs=0.001)
        assert np.mean(clipped <= clipped.min()) == pytest.approx(percent / 200, abs=0.001)
    quiet = conditions.level(wave, SR, np.random.default_rng(0), decibels=-20)
    np.testing.assert_array_equal(quiet, np.round(0.1 * wave * 2**15) / 2**15)
    assert np.abs(conditions.level(wave, SR, np.random.default_rng(0), decibels=40)).max() <= 1


def test_a_voice_does_not_babble_behind_itself(around):
    for voice in around.voices:
        others = around.beside(voice).voices
        assert voice not in others
        assert len(others) == 7
        assert others == around.beside(voice).voices
    many = conditions.Surroundings(tuple(f"/x/voice{number}" for number in range(300)))
    assert len(set(many.beside("/x/voice7").voices)) == conditions.NEIGHBOURS


def test_babble_is_several_voices(around, wave, monkeypatch):
    heard, real = [], audio.load_audio
    monkeypatch.setattr(audio, "load_audio", lambda path, sr: heard.append(path) or real(path, sr))
    conditions.babble(wave, SR, np.random.default_rng(0), voices=around.voices, snr=10)
    assert 3 <= len({path.rpartition("/")[0] for path in heard}) == len(heard) <= 7


def test_drawn_conditions_are_varied_and_described(around, wave, monkeypatch):
    """Without the samples: what 400 draws are of."""
    for name in (*KINDS, "room", "telephone", "codec", "clipping", "level"):
        monkeypatch.setattr(conditions, name, lambda wave, sr, rng, **_: wave)
    drawn = [conditions.draw(around, wave, SR, np.random.default_rng(seed))[0] for seed in range(400)]
    assert all(drawn)
    for word, low, high in (("room", 0.4, 0.6), ("recorded noise", 0.2, 0.4), ("babble", 0.13, 0.33),
                            ("telephone", 0.15, 0.33), ("hum", 0.01, 0.1), ("clipping", 0.02, 0.15)):
        assert low < np.mean([word in description for description in drawn]) < high, word
    assert 0.2 < np.mean(["," in description for description in drawn]) < 0.7
    for pattern, low, high in ((r"(?:noise|hum|babble) (-?\d+) dB", 0, 25), (r"room ([\d.]+) s", 0.2, 1.0),
                               (r"clipping (\d+) %", 2, 15), (r"level (-?\d+) dB", -40, -10)):
        numbers = [float(number) for description in drawn for number in re.findall(pattern, description)]
        assert low <= min(numbers) < low + (high - low) / 3 < high - (high - low) / 3 < max(numbers) <= high, pattern
    nobody = conditions.Surroundings()
    alone = [conditions.draw(nobody, wave, SR, np.random.default_rng(seed))[0] for seed in range(200)]
    assert not any("babble" in description or "recorded" in description for description in alone)


def test_nothing_outside_draws_from_our_seeds(wave):
    np.random.seed(7)      # noqa: NPY002
    before = np.random.get_state()[1].copy()       # noqa: NPY002
    conditions.colour_noise(wave, SR, np.random.default_rng(0), snr=10)
    conditions.room_response.__wrapped__(SR, 0.3, 1)
    np.testing.assert_array_equal(np.random.get_state()[1], before)        # noqa: NPY002


def test_silence_stays_whole(around):
    silence = np.zeros(SR, np.float32)
    for name, condition in around.conditions.items():
        heard = condition(silence, SR, np.random.default_rng(0))
        assert np.isfinite(heard).all(), name
        assert len(heard) == SR


def test_what_cannot_be_used_is_said(tmp_path, wave, monkeypatch):
    with pytest.raises(InputError, match=r"--noise_raw_path is .*nowhere: there is no such folder"):
        conditions.find_noises(tmp_path / "nowhere")
    with pytest.raises(InputError, match="it holds no recordings"):
        conditions.find_noises(tmp_path)
    (tmp_path / "a.wav").write_bytes(b"no sound")
    conditions.recordings_of.cache_clear()
    with pytest.raises(InputError, match=r"--noise_raw_path is .*a\.wav cannot be read: .*; take that file out"):
        conditions.find_noises(tmp_path)
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    with pytest.raises(InputError, match=r"bad.wav cannot be read: Format not"):
        conditions.recorded_noise(wave, SR, np.random.default_rng(0), files=[str(tmp_path / "bad.wav")], snr=10)
    monkeypatch.setitem(sys.modules, "audiomentations", None)
    fresh = importlib.util.module_from_spec(importlib.util.find_spec("conditions"))
    fresh.__spec__.loader.exec_module(fresh)
    with pytest.raises(InputError, match=r"audiomentations is needed for copies and conditions.*pip install -r"):
        fresh.colour_noise(wave, SR, np.random.default_rng(0), snr=10)
