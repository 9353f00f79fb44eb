"""Recordings of telephones and browsers: whole ones are heard, cut ones are named, wherever a path is taken."""
import json
import pathlib
import re
import shutil
import struct
import subprocess
import sys

import av
import numpy as np
import pytest
import soundfile
from conftest import CONTAINERS, write_container

import audio
import conditions
import configuration
import data_preprocess
import gui
import model
import record
import test
from common import InputError

ROOT = pathlib.Path(audio.__file__).parent
SR = 16000


@pytest.fixture(scope="module")
def wave(voice):
    """Three seconds of a synthetic voice, (S,) at 16 kHz, in steps of 16 bits."""
    wave = np.concatenate([audio.load_audio(voice / f"0{take}.wav", SR) for take in range(2)])[:3 * SR]
    return (np.round(wave * 2**15) / 2**15).astype(np.float32)


@pytest.fixture(scope="module")
def recordings(wave, tmp_path_factory):
    """The folder of CONTAINERS, each a recording of the wave."""
    folder = tmp_path_factory.mktemp("containers")
    for name, (codec, options) in CONTAINERS.items():
        write_container(folder / name, wave, SR, codec, **options)
    raw = (folder / "browser.webm").read_bytes()
    (folder / "browser.webm").write_bytes(re.sub(rb"(\x18\x53\x80\x67|\x1f\x43\xb6\x75)(.{8})", left_open, raw,
                                                 flags=re.DOTALL))
    return folder


def left_open(found):
    """Return the start of a Segment or Cluster of Matroska with a size that is not known yet, as browsers write it."""
    element, size = found.groups()
    width = 9 - size[0].bit_length()
    return element + (2 ** (7 * width + 1) - 1).to_bytes(width) + size[width:]


def likeness(heard, wave):
    """Return the correlation of two signals, one shifted as it fits best, and by how many samples it is late."""
    size = len(heard) + len(wave)
    lags = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(wave, size)), size)
    late = int(np.argmax(lags))
    late -= size * (late > size // 2)
    heard, wave = heard[max(late, 0):], wave[max(-late, 0):]
    both = min(len(heard), len(wave))
    return np.corrcoef(heard[:both], wave[:both])[0, 1], late


# ---- one recording ----------------------------------------------------------------------------------------------

def test_an_opus_that_libsndfile_refuses_is_heard(wave, tmp_path, monkeypatch):
    """It calls a part of what FFmpeg writes malformed (1.2.2). Cut anywhere, such a file is named."""
    def refuse(path):
        raise soundfile.LibsndfileError(666, f"{path}: ")

    write_container(tmp_path / "a.opus", np.tile(wave, 4), SR, "libopus")
    whole = (tmp_path / "a.opus").read_bytes()
    monkeypatch.setattr(soundfile, "SoundFile", refuse)
    heard = audio.load_audio(tmp_path / "a.opus", SR)
    assert abs(len(heard) - 4 * len(wave)) < 400
    assert likeness(heard, np.tile(wave, 4))[0] > 0.98
    for size in np.linspace(1, len(whole) - 1, 40).astype(int):
        (tmp_path / "a.opus").write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"a\.opus (is|cannot be read)"):
            audio.load_audio(tmp_path / "a.opus", SR)


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_is_heard(recordings, wave, name, capfd, caplog):
    """AMR keeps what lies below 4 kHz; a stream without an index keeps what its codec puts before the sound."""
    heard = audio.load_audio(recordings / name, SR)
    assert heard.dtype == np.float32
    assert len(wave) - 800 <= len(heard) <= len(wave) + 2400
    telephone = "amrnb" in CONTAINERS[name][0]
    correlation, late = likeness(heard, wave)
    assert correlation > (0.9 if telephone else 0.98)
    assert abs(late) <= (1200 if name in ("a.aac", "fragments.mp4") else 100)
    assert bool(audio.bandwidth_notes(recordings / name, SR)) == telephone
    assert (*capfd.readouterr(), caplog.text) == ("", "", "")


@pytest.mark.parametrize(("name", "codec"), [("a.m4a", "alac"), ("a.mka", "flac"), ("a.mov", "pcm_s16be"),
                                             ("a.mkv", "pcm_u8")])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [SR, 44100])
def test_what_is_lossless_equals_a_wav(tmp_path, name, codec, channels, rate):
    wave = np.random.default_rng(0).integers(-2**15, 2**15, (rate, channels)) / 2**15
    if codec == "pcm_u8":
        wave = np.floor(wave * 2**7) / 2**7
    write_container(tmp_path / name, wave if channels == 2 else wave[:, 0], rate, codec)
    soundfile.write(tmp_path / "a.wav", wave, rate, "PCM_16")
    np.testing.assert_array_equal(audio.load_audio(tmp_path / name, SR), audio.load_audio(tmp_path / "a.wav", SR))


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("kept", [0.3, 0.62, 0.95])
def test_a_cut_one_is_refused(recordings, tmp_path, name, kept, capfd, caplog):
    raw = (recordings / name).read_bytes()
    (tmp_path / name).write_bytes(raw[:int(kept * len(raw))])
    with pytest.raises(InputError, match=r"is cut short|cannot be read|holds no sound track"):
        audio.load_audio(tmp_path / name, SR)
    assert (*capfd.readouterr(), caplog.text) == ("", "", "")


def test_the_length_that_is_announced_counts(recordings, tmp_path):
    """A WebM that announces 6 s and holds 3; one of a browser that ends after half of its packets."""
    raw = bytearray((recordings / "a.webm").read_bytes())
    place = raw.index(b"\x44\x89\x88") + 3                                     # Duration, 8 bytes, in ms
    assert struct.unpack_from(">d", raw, place)[0] == pytest.approx(3000, abs=20)
    struct.pack_into(">d", raw, place, 6000)
    (tmp_path / "a.webm").write_bytes(raw)
    with pytest.raises(InputError, match=r"is cut short: 3\.0\d of 6\.00 s are there"):
        audio.load_audio(tmp_path / "a.webm", SR)
    raw = (recordings / "browser.webm").read_bytes()
    blocks = [found.start() for found in re.finditer(rb"\xa3[\x40-\x4f].\x81", raw, re.DOTALL)]      # SimpleBlock
    assert len(blocks) > 100
    (tmp_path / "browser.webm").write_bytes(raw[:blocks[len(blocks) // 2]])
    assert len(audio.load_audio(tmp_path / "browser.webm", SR)) == pytest.approx(1.5 * SR, abs=800)


@pytest.mark.parametrize("value", [b"\0\0\xa0\x7f", b"\0\0\x80\x7f"])                  # a signalling NaN, infinity
def test_what_is_not_finite_is_refused(recordings, tmp_path, value):
    raw = bytearray((recordings / "float.mkv").read_bytes())
    raw[len(raw) // 2:len(raw) // 2 + 64] = 16 * value
    (tmp_path / "a.mkv").write_bytes(raw)
    with pytest.raises(InputError, match="not finite"):
        audio.load_audio(tmp_path / "a.mkv", SR)


def test_a_length_that_is_estimated_does_not_count(wave, tmp_path):
    """Ten seconds of silence take few bytes, so that those behind them look like many more seconds."""
    whole = np.concatenate([np.zeros(10 * SR, np.float32), wave, wave])
    write_container(tmp_path / "a.aac", whole, SR, "aac", format="adts")
    assert len(audio.load_audio(tmp_path / "a.aac", SR)) == pytest.approx(16 * SR, abs=2400)


def test_a_hole_is_named_and_a_scratch_is_not(wave, tmp_path):
    """AAC frames that are overwritten: 1 of 190 may be lost, a tenth may not."""
    write_container(tmp_path / "a.aac", np.tile(wave, 4), SR, "aac", format="adts")
    raw = (tmp_path / "a.aac").read_bytes()
    starts = [found.start() for found in re.finditer(rb"\xff\xf1", raw)]
    assert len(starts) > 180
    for first, last, refused in ((90, 91, False), (80, 100, True)):
        damaged = bytearray(raw)
        for start, end in zip(starts[first:last], starts[first + 1:last + 1], strict=True):
            damaged[start + 7:end] = b"\xff" * (end - start - 7)
        (tmp_path / "a.aac").write_bytes(damaged)
        if refused:
            with pytest.raises(InputError, match=r"is damaged: \d+ of \d+ packets cannot be decoded"):
                audio.load_audio(tmp_path / "a.aac", SR)
        else:
            assert len(audio.load_audio(tmp_path / "a.aac", SR)) > 11.8 * SR


def test_a_video_is_heard_like_its_sound_and_a_silent_one_is_refused(wave, tmp_path):
    for codec in ("aac", "flac", "libopus", "libmp3lame"):
        write_container(tmp_path / "a.mkv", wave, SR, codec, video=True)
        write_container(tmp_path / "b.mkv", wave, SR, codec)
        np.testing.assert_array_equal(*(audio.load_audio(tmp_path / name, SR) for name in ("a.mkv", "b.mkv")))
    write_container(tmp_path / "a.mp4", wave, SR, "aac", video=True)
    raw = (tmp_path / "a.mp4").read_bytes()
    assert raw.count(b"vide") == 1
    (tmp_path / "b.mp4").write_bytes(raw.replace(b"vide", b"meta").replace(b"mp4v", b"mebx"))     # data, as of iPhones
    np.testing.assert_array_equal(*(audio.load_audio(tmp_path / name, SR) for name in ("a.mp4", "b.mp4")))
    write_container(tmp_path / "silent.mp4", wave, SR, None, video=True)
    with pytest.raises(InputError, match=r"silent\.mp4 holds no sound track that can be decoded"):
        audio.load_audio(tmp_path / "silent.mp4", SR)


@pytest.mark.parametrize(("name", "other"), [
    ("a.m4a", "a.mp3"), ("a.m4a", "a.wav"), ("a.mov", "a.mp3"), ("a.aac", "a.mp3"), ("a.webm", "a.m4a"),
    ("a.amr", "a.3gp"), ("a.mka", "a.ogg")])
def test_what_a_file_holds_counts_and_not_its_suffix(recordings, tmp_path, name, other):
    shutil.copy(recordings / name, tmp_path / other)
    np.testing.assert_array_equal(audio.load_audio(tmp_path / other, SR), audio.load_audio(recordings / name, SR))


def test_a_webm_with_a_hole_is_damaged(wave, tmp_path):
    """FFmpeg goes on behind it, and the last packet has the time of the end."""
    write_container(tmp_path / "a.webm", np.tile(wave, 10), SR, "libopus")
    raw = (tmp_path / "a.webm").read_bytes()
    assert len(audio.load_audio(tmp_path / "a.webm", SR)) == pytest.approx(10 * len(wave), abs=SR)
    place, hole = 2 * len(raw) // 5, len(raw) // 10
    (tmp_path / "a.webm").write_bytes(raw[:place] + bytes(hole) + raw[place + hole:])
    with pytest.raises(InputError, match="damaged: a part of it cannot be read"):
        audio.load_audio(tmp_path / "a.webm", SR)


@pytest.mark.parametrize(("name", "codec"), [("a.webm", "libopus"), ("a.mkv", "flac"), ("a.mka", "pcm_s16le")])
def test_what_is_cut_out_of_the_middle_is_missed(wave, tmp_path, name, codec):
    """The packets behind tell by their times that there was more; so does a page of Ogg, whatever its codec."""
    write_container(tmp_path / name, np.tile(wave, 4), SR, codec)
    raw = (tmp_path / name).read_bytes()
    assert len(audio.load_audio(tmp_path / name, SR)) == pytest.approx(4 * len(wave), abs=800)
    for place in (len(raw) // 3, len(raw) // 2):
        (tmp_path / name).write_bytes(raw[:place] + raw[place + len(raw) // 8:])
        with pytest.raises(InputError, match=r"is damaged|cannot be read|is cut short"):
            audio.load_audio(tmp_path / name, SR)


@pytest.mark.parametrize(("name", "codec"), [("a.m4a", "aac"), ("a.webm", "libopus"), ("a.mkv", "flac"),
                                             ("a.wav", "pcm_s16le"), ("a.mov", "pcm_s16le")])
def test_eight_channels_are_averaged(wave, tmp_path, name, codec):
    """In a process of its own: to read beyond them ends one. One speaks, and one at half of its level."""
    channels = np.zeros((len(wave), 8), np.float32)
    channels[:, 0], channels[:, 5] = wave, wave / 2
    write_container(tmp_path / name, channels, 48000, codec, bit_rate=512000)
    code = "import sys, audio, numpy; numpy.save(sys.argv[2], audio.load_audio(sys.argv[1], 48000))"
    assert in_a_new_process(code, tmp_path / name, tmp_path / "heard.npy") == (0, "", "")
    heard = np.load(tmp_path / "heard.npy", allow_pickle=False)
    assert likeness(heard, wave)[0] > 0.95
    assert np.std(heard) == pytest.approx(1.5 / 8 * np.std(wave), rel=0.1)


def rewrite(source, target, change):
    """Copy the packets of a container, each as change(packet) leaves it; None leaves it out."""
    with av.open(source) as old, av.open(target, "w", options={"avoid_negative_ts": "disabled"}) as new:
        track = new.add_stream_from_template(old.streams.audio[0])
        for packet in old.demux(old.streams.audio[0]):
            if packet.dts is not None and change(packet):
                packet.stream = track
                new.mux(packet)


def test_what_an_edit_list_leaves_out_is_not_missed(wave, tmp_path):
    """As telephones trim a recording: all packets are there, and the first second is not to be heard."""
    def move(packet):
        packet.pts, packet.dts = packet.pts - SR, packet.dts - SR
        return True

    write_container(tmp_path / "a.m4a", np.tile(wave, 2), SR, "aac")
    rewrite(tmp_path / "a.m4a", tmp_path / "b.m4a", move)
    heard = audio.load_audio(tmp_path / "b.m4a", SR)
    assert len(heard) == pytest.approx(5 * SR, abs=1100)              # to a packet
    assert likeness(heard, np.tile(wave, 2)[SR:])[0] > 0.98


@pytest.mark.parametrize("name", ["a.amr", "a.3gp"])
def test_pauses_that_a_telephone_does_not_send_are_silence(wave, tmp_path, name):
    """AMR with DTX: FFmpeg's own decoder calls the packets of a pause broken."""
    pause = np.concatenate([wave, np.zeros(4 * SR, np.float32), wave])
    write_container(tmp_path / name, pause, SR, "libopencore_amrnb", rate=8000, bit_rate=12200,
                    encoder_options={"dtx": "1"})
    heard = audio.load_audio(tmp_path / name, SR)
    assert len(heard) == pytest.approx(len(pause), abs=800)
    assert likeness(heard, pause)[0] > 0.9


def test_pauses_of_opus_need_not_be_there(wave, tmp_path):
    """A packet of 20 ms every 0.4 s of a pause is enough; a second without any is a hole."""
    write_container(tmp_path / "a.webm", np.tile(wave, 4), SR, "libopus")
    rewrite(tmp_path / "a.webm", tmp_path / "b.webm",
            lambda packet: not 4000 < packet.pts < 8000 or packet.pts % 400 < 20)
    assert len(audio.load_audio(tmp_path / "b.webm", SR)) == pytest.approx(8.2 * SR, abs=0.2 * SR)
    rewrite(tmp_path / "a.webm", tmp_path / "b.webm", lambda packet: not 4000 < packet.pts < 5000)
    with pytest.raises(InputError, match=r"is damaged: 11\.\d+ of 1[12]\.\d+ s are there"):
        audio.load_audio(tmp_path / "b.webm", SR)


def test_an_aac_with_a_title_is_read(recordings, tmp_path):
    """An ID3v2 tag of 64 bytes comes first, as in what was recorded from the radio."""
    (tmp_path / "a.aac").write_bytes(b"ID3\4\0\0\0\0\0\x40" + bytes(64) + (recordings / "a.aac").read_bytes())
    np.testing.assert_array_equal(audio.load_audio(tmp_path / "a.aac", SR), audio.load_audio(recordings / "a.aac", SR))


@pytest.mark.parametrize("rates", [(64000, 64000), (32000, 160000), (160000, 32000)])          # bits per second
def test_an_mp3_is_as_long_as_its_packets_not_as_its_first_frame_says(wave, tmp_path, rates):
    parts = []
    for rate in rates:
        write_container(tmp_path / "a.mp3", wave, SR, "libmp3lame", bit_rate=rate, options={"write_xing": "0"})
        parts.append((tmp_path / "a.mp3").read_bytes())
    (tmp_path / "a.mp3").write_bytes(b"".join(parts))
    heard = audio.load_audio(tmp_path / "a.mp3", SR)
    assert len(heard) == pytest.approx(2 * len(wave), abs=0.2 * SR)
    assert likeness(heard[len(heard) // 2:], wave)[0] > 0.95


def test_a_wav_or_mp3_by_the_name_of_m4a_is_read(wave, tmp_path):
    for suffix in ("wav", "mp3"):
        soundfile.write(tmp_path / f"a.{suffix}", wave, SR)
        shutil.copy(tmp_path / f"a.{suffix}", tmp_path / "a.m4a")
        np.testing.assert_array_equal(audio.load_audio(tmp_path / "a.m4a", SR),
                                      audio.load_audio(tmp_path / f"a.{suffix}", SR))


@pytest.mark.parametrize("content", [b"", b"not audio at all", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
                                     b"\x1a\x45\xdf\xa3", b"#!AMR\n", b"\0\0\0\x18ftypM4A "])
def test_what_is_no_recording_is_refused(tmp_path, content):
    (tmp_path / "a.m4a").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.m4a (cannot be read|is cut short|is empty)"):
        audio.load_audio(tmp_path / "a.m4a", SR)
    assert audio.bandwidth_notes(tmp_path / "a.m4a", SR) in ([], [f"{tmp_path / 'a.m4a'} is at 8000 Hz, below the "
        "model's 16000 Hz: it lacks frequencies, and its scores are not reliable"])
    with pytest.raises(InputError, match=r"b\.m4a cannot be opened: No such file"):
        audio.load_audio(tmp_path / "b.m4a", SR)


def test_a_path_is_no_address(recordings, tmp_path, monkeypatch):
    """What FFmpeg would take for a protocol is the name of a file, and no file sends it to another one."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(recordings / "lossless.m4a", "b.m4a")
    pathlib.Path("a.m4a").write_text("ffconcat version 1.0\nfile b.m4a\n")
    with pytest.raises(InputError, match=r"a\.m4a cannot be read: Format not recognised"):
        audio.load_audio("a.m4a", SR)
    pathlib.Path("http:").mkdir()
    for name in ("concat:a.m4a", "http:/a.m4a", "a%d.m4a", "a?b#c.m4a"):
        shutil.copy(recordings / "lossless.m4a", name)
        assert len(audio.load_audio(name, SR)) == 3 * SR


# ---- PyAV, when it is needed ------------------------------------------------------------------------------------

def in_a_new_process(code, *argv):
    """Run code in a process of its own; return exit code, output and errors."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, argv)], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    return done.returncode, done.stdout, done.stderr


def test_pyav_loads_for_a_container_alone(recordings, voice, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"not audio at all")
    code = """
import contextlib, sys, audio, record, gui, verification
for path in sys.argv[1:3]:
    with contextlib.suppress(audio.InputError):
        audio.load_audio(path, 16000), audio.bandwidth_notes(path, 16000)
before = "av" in sys.modules
audio.load_audio(sys.argv[3], 16000)
print(before, "av" in sys.modules)
"""
    assert in_a_new_process(code, voice / "00.wav", tmp_path / "bad.wav", recordings / "a.m4a") == (
        0, "False True\n", "")


WITHOUT_AV = "import sys; sys.modules['av'] = None; import {0}; sys.exit({0}.main(sys.argv[1:]))"
NEEDED = ("error: recordings of telephones and browsers need PyAV, which cannot be loaded (import of av halted; None "
          "in sys.modules): pip install -r requirements-listen.txt")


def test_without_pyav_one_line_says_how_to_get_it(recordings, voice, tmp_path):
    folders = ("--enroll_path", tmp_path / "enroll")
    command = ("--speaker", "anna", "--model_path", ROOT / "pretrained", *folders, "--input")
    code, _, errors = in_a_new_process(WITHOUT_AV.format("record"), *command, recordings / "a.m4a")
    assert (code, errors) == (2, NEEDED + "\n")
    assert in_a_new_process(WITHOUT_AV.format("record"), *command, voice / "00.wav")[0] == 0


def test_without_pyav_preprocessing_stops_and_drops_nothing(recordings, tmp_path):
    """A file that was dropped would not be read again once PyAV is there."""
    for take in range(2):
        (tmp_path / "raw" / f"id{take}").mkdir(parents=True)
        shutil.copy(recordings / "a.m4a", tmp_path / "raw" / f"id{take}")
    command = ("--raw_path", tmp_path / "raw", "--train_path", tmp_path / "train", "--test_path", tmp_path / "test",
               "--jobs", "1")
    code, _, errors = in_a_new_process(WITHOUT_AV.format("data_preprocess"), *command)
    assert (code, errors.splitlines()[-1]) == (2, NEEDED)
    assert not list((tmp_path / "train").glob("id*"))
    assert data_preprocess.main([*map(str, command)]) == 0
    assert len(list(tmp_path.glob("t*/id*.npy"))) == 2


# ---- wherever a path is taken -----------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def voxceleb(corpus, tmp_path_factory):
    """The layout of VoxCeleb 2, id/video/00001.m4a: three voices, two sessions of two recordings; one more is cut."""
    folder = tmp_path_factory.mktemp("vox") / "aac"
    for number, home in enumerate(sorted((corpus / "test").iterdir())):
        for take, name in enumerate(("x1_A/00001", "x1_A/00002", "-yB/00001", "-yB/00002")):
            path = folder / f"id0000{number}" / f"{name}.m4a"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_container(path, audio.load_audio(home / f"0{take}.wav", SR), SR, "aac")
    raw = (folder / "id00000" / "x1_A" / "00001.m4a").read_bytes()
    (folder / "id00000" / "x1_A" / "00003.m4a").write_bytes(raw[:2000])
    return folder


def test_voxceleb_2_is_preprocessed(voxceleb, tmp_path, capsys):
    flags = ["--raw_path", str(voxceleb), "--train_path", str(tmp_path / "train"), "--test_path",
             str(tmp_path / "test"), "--test_ratio", "0", "--jobs", "1", "--sr", str(SR)]
    assert data_preprocess.main(flags) == 0
    printed, errors = capsys.readouterr()
    assert re.search(r"^utterances +13$", printed, re.MULTILINE)
    assert re.search(r"^dropped: is cut short +1$", printed, re.MULTILINE)
    assert "ignored" not in printed
    assert f"skipped: {voxceleb}/id00000/x1_A/00003.m4a is cut short: moov atom not found" in errors
    entries = json.loads((tmp_path / "train" / "id00000.json").read_text())["utterances"]
    assert [(entry["file"], entry["dropped"][:12]) for entry in entries] == [
        ("-yB/00001.m4a", ""), ("-yB/00002.m4a", ""), ("x1_A/00001.m4a", ""), ("x1_A/00002.m4a", ""),
        ("x1_A/00003.m4a", "is cut short")]
    assert all(entry["count"] > 0 for entry in entries[:4])


def test_files_and_folders_are_verified(voxceleb, tmp_path, capsys):
    flags = ["--verify", "--model_path", str(ROOT / "pretrained"), "--threshold", "-1"]
    one, other = voxceleb / "id00001", voxceleb / "id00002" / "-yB" / "00001.m4a"
    assert model.main([*flags, "--enroll_path", str(one), "--verify_path", str(other)]) == 0
    assert capsys.readouterr().out.startswith("Same person: 00001.m4a and ")
    assert model.main([*flags, "--enroll_path", str(other), "--verify_path", str(one)]) == 0
    assert capsys.readouterr().out.count("Same person: ") == 4


def test_a_voice_is_enrolled_and_a_cut_file_is_one_line(recordings, voxceleb, tmp_path, fails, capsys):
    flags = ["--model_path", str(ROOT / "pretrained"), "--enroll_path", str(tmp_path / "enroll"), "--verify_path",
             str(tmp_path / "verify")]
    assert record.main([*flags, "--speaker", "anna", "--input", str(recordings / "browser.webm")]) == 0
    assert record.main([*flags, "--verify", "--threshold", "-1", "--input", str(recordings / "phone.3gp")]) == 0
    printed, notes = capsys.readouterr()
    assert "Same person: probe and anna" in printed
    assert f"note: {recordings / 'phone.3gp'} is at 8000 Hz" in notes
    cut = voxceleb / "id00000" / "x1_A" / "00003.m4a"
    assert fails(record.main, *flags, "--speaker", "anna", "--input", cut) == (
        f"error: {cut} is cut short: moov atom not found")


def test_lists_of_trials_and_the_windows_dialogue_know_them(voxceleb):
    names = ["id00001/x1_A/00001.m4a", "id00001/x1_A/00001.wav", "id00002/-yB/00002"]
    found = test.find_recordings(names, voxceleb)
    assert [str(found[name].relative_to(voxceleb)) for name in names] == [
        "id00001/x1_A/00001.m4a", "id00001/x1_A/00001.m4a", "id00002/-yB/00002.m4a"]
    patterns = gui.SOUNDS[0][1].split()
    assert {"*.m4a", "*.aac", "*.mp4", "*.webm", "*.amr", "*.3gp", "*.wav"} <= set(patterns)


def test_a_noise_may_be_a_container(wave, tmp_path):
    """A part of it is mixed in, at the ratio asked for; a cut one is named."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(6 * SR).astype(np.float32)
    write_container(tmp_path / "a.m4a", noise, SR, "alac")
    files = conditions.find_noises(tmp_path)
    noisy = conditions.recorded_noise(wave, SR, np.random.default_rng(1), files=files, snr=5)
    np.testing.assert_array_equal(
        conditions.recorded_noise(wave, SR, np.random.default_rng(1), files=files, snr=5), noisy)
    added = noisy - wave
    speech = audio.voiced(wave, sr=SR, window=0.025, hop=0.01, top_db=30)
    assert audio.level_db(speech) - audio.level_db(added) == pytest.approx(5, abs=0.1)
    assert likeness(added, noise)[0] > 0.99
    short = conditions.recorded_noise(np.tile(wave, 3), SR, np.random.default_rng(1), files=files, snr=5)
    assert len(short) == 9 * SR
    shutil.copy(tmp_path / "a.m4a", tmp_path / "b.wav")                 # a suffix may be wrong
    np.testing.assert_array_equal(conditions.recorded_noise(wave, SR, np.random.default_rng(1), files=[
        str(tmp_path / "b.wav")], snr=5), noisy)
    (tmp_path / "cut.m4a").write_bytes((tmp_path / "a.m4a").read_bytes()[:9000])
    with pytest.raises(InputError, match=r"cut\.m4a is cut short"):
        conditions.recorded_noise(wave, SR, np.random.default_rng(1), files=[str(tmp_path / "cut.m4a")], snr=5)


def test_features_of_a_container_are_those_of_the_same_wav(recordings, wave, tmp_path):
    soundfile.write(tmp_path / "a.wav", wave, SR, "PCM_16")
    config = configuration.get_config(["--sr", str(SR)])
    ours, entry = audio.read_utterance(recordings / "lossless.m4a", config)
    theirs, other = audio.read_utterance(tmp_path / "a.wav", config)
    np.testing.assert_array_equal(ours, theirs)
    assert entry == other
