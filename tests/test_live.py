"""A verdict while somebody speaks: the listener, when it is sure, record.py --live, who speaks now."""
import math
from dataclasses import replace

import numpy as np
import pytest
import soundfile

import audio
import configuration
import verification

BLOCK = 400                 # samples, 0.05 s at 8 kHz


@pytest.fixture
def verifier(knowing):
    return verification.Verifier(configuration.get_config(["--model_path", str(knowing)]))


@pytest.fixture
def voices(verifier, corpus):
    """Three enrolled voices."""
    return verifier.voices(corpus / "test")


def speech_of(corpus, name, takes):
    """Return utterances of a voice, joined, float32 (S,) at 8 kHz."""
    return np.concatenate([audio.load_audio(corpus / "test" / name / f"{take:02}.wav", 8000) for take in takes])


def fed(listener, wave, size):
    """Feed a wave in blocks; return the Verdicts that come of it and the samples after which they came."""
    found = []
    for start in range(0, len(wave), size):
        verdict = listener.feed(wave[start:start + size])
        if verdict:
            found.append((start + size, verdict))
    return found


# ---- the listener -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("rate", "sizes"), [(8000, (1, 93, 400, 16000, 10**6)), (44100, (31, 2205, 10**6)),
                                             (48000, (4800,)), (6000, (500,))])
def test_after_a_whole_recording_the_result_is_that_of_its_file(verifier, voices, corpus, tmp_path, rate, sizes):
    wave = audio.librosa.resample(speech_of(corpus, "voice09", (0, 1)), orig_sr=8000, target_sr=rate)
    soundfile.write(tmp_path / "probe.wav", wave, rate, "FLOAT")
    probe, = verifier.probes(tmp_path / "probe.wav")
    wanted = verifier.compare(probe, voices)
    for size in sizes:
        listener = verification.Listener(verifier, voices, rate)
        fed(listener, wave, size)
        found = listener.finish()
        assert len(found.scores) == 3
        assert dict(found.scores) == pytest.approx(dict(wanted.scores), abs=1e-4)
        assert (found.llr, found.probe_seconds) == pytest.approx((wanted.llr, wanted.probe_seconds), abs=1e-4)
        assert (found.speaker, found.snr, found.bandwidth) == (wanted.speaker, wanted.snr, wanted.bandwidth)


def test_a_verdict_comes_with_every_0_4_s_of_speech_and_is_that_of_a_recording_of_so_much(verifier, voices, corpus):
    wave = speech_of(corpus, "voice09", (0, 1, 2))
    found = fed(verification.Listener(verifier, voices), wave, BLOCK)
    assert found[0][1].problem.startswith("too little speech, 0.4")
    heard = [(end, verdict) for end, verdict in found if not verdict.problem]
    steps = np.diff([verdict.probe_seconds for _, verdict in heard])
    assert len(steps) > 5
    assert (np.abs(steps) >= 0.4).all()
    assert np.median(steps) < 0.6                       # what a look is late: a quarter of 0.4 s, and a block
    for end, verdict in heard[::4]:
        cuts, entry = audio.segments_and_entry(wave[:end], verifier.config)
        wanted = verifier.compare(verifier.embed_voice("probe", [("probe", cuts, entry)]), voices)
        assert dict(verdict.scores) == pytest.approx(dict(wanted.scores), abs=1e-6)


class Looks(verification.Listener):
    """A listener that tells when it would judge, and does not."""

    def judge(self, seconds=0.0):
        self.speech_seconds = seconds
        return verification.Verdict("probe")


def test_of_a_long_recording_a_fiftieth_must_be_new(verifier, corpus):
    wave = np.tile(speech_of(corpus, "voice09", range(6)), 6)
    ends = [end / 8000 for end, _ in fed(Looks(verifier, []), wave, BLOCK)]
    assert ends[-1] > 60
    steps = np.diff(ends)
    assert all(step >= 0.0199 * end for step, end in zip(steps, ends[1:], strict=True))


def test_silence_and_steady_noise_are_no_speech(verifier, voices):
    noise = 0.01 * np.random.default_rng(0).standard_normal(24000)
    for wave, problem in ((np.zeros(24000), "no speech: probe is silent"),
                          (noise, "no speech: probe is steady noise or a tone")):
        listener = verification.Listener(verifier, voices)
        assert all(verdict.problem and not verdict.sure for _, verdict in fed(listener, wave, BLOCK))
        assert listener.finish().problem == problem


# ---- when it is sure --------------------------------------------------------------------------------------------

def test_the_bounds_are_walds():
    """By hand: ln(0.5 / 0.01) = 3.912, ln(0.5 / 0.99) = -0.683; never on the threshold's other side."""
    threshold = verification.Threshold(0.5, 0.02, 0.1, "by hand", 1.5, far_all=0.01, frr_all=0.5)
    assert threshold.bounds == pytest.approx((-0.68310, 3.91202), abs=1e-5)
    assert replace(threshold, llr=4.5).bounds == pytest.approx((-0.68310, 4.5), abs=1e-5)
    assert replace(threshold, llr=-1.0).bounds == pytest.approx((-1.0, 3.91202), abs=1e-5)
    for unknown in ({"llr": None}, {"far_all": None}, {"far_all": 0.0}, {"frr_all": 0.0}):
        assert replace(threshold, **unknown).bounds == (-math.inf, math.inf)


THRESHOLD = verification.Threshold(0.65, 0.02, 0.1, "by hand", 1.5, far_all=0.01, frr_all=0.5)


@pytest.mark.parametrize(("ratios", "more", "sure"), [
    ({"anna": 3.92}, {}, True), ({"anna": 3.9}, {}, False), ({"anna": -0.68}, {}, False), ({"anna": -0.69}, {}, True),
    ({"anna": 5.0, "ben": 2.9}, {}, True), ({"anna": 5.0, "ben": 3.1}, {}, False),      # the lead is 2.1, 1.9
    ({"anna": -0.7, "ben": -0.8}, {}, True), ({"anna": -0.6, "ben": -9.0}, {}, False),
    ({"anna": 9.0}, {"notes": ["outside of what was measured"]}, False),
    ({"anna": 9.0}, {"threshold": replace(THRESHOLD, llr=None)}, False)])
def test_it_is_sure_beyond_the_bounds_and_well_ahead_of_the_next(ratios, more, sure):
    verdict = verification.Verdict("probe", "", "anna", 0.7, ratios["anna"], THRESHOLD, ratios=ratios)
    assert replace(verdict, **more).sure == sure
    assert not verification.Verdict("probe", "no speech").sure


def test_every_ratio_is_that_of_its_score(verifier, voices, corpus):
    """By hand: 10 s - 5 - 2 ln(seconds / 4)."""
    cuts, entry = audio.segments_and_entry(speech_of(corpus, "voice10", (3,)), verifier.config)
    verdict = verifier.compare(verifier.embed_voice("probe", [("probe", cuts, entry)]), voices)
    assert len(verdict.ratios) == 3
    assert verdict.ratios == pytest.approx({
        name: 10 * score - 5 - 2 * math.log(verdict.probe_seconds / 4) for name, score in verdict.scores})
    assert list(verdict.ratios) == [name for name, _ in verdict.scores]
    assert verdict.llr == verdict.ratios[verdict.speaker]
