"""What telephones, browsers and cameras record, read through PyAV: the first sound track of a container → samples.

    with containers.open_container("talk.m4a") as (track, log):
        wave, rate, problem = containers.read_container(track, log)          (S,)

What FFmpeg passes over in silence, a hole or a missing end, is a problem here.
"""
import contextlib
import ctypes
import os
import pathlib
import re

import numpy as np

from common import InputError, av

SUFFIXES = {".3g2", ".3ga", ".3gp", ".3gpp", ".aac", ".amr", ".awb", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov",
            ".mp4", ".qta", ".webm"}
# MP4 and 3GP, Matroska and WebM, AMR, AAC: libsndfile would take some of them for a damaged MP3.
HEADS = re.compile(rb".{4}ftyp|\x1a\x45\xdf\xa3|#!AMR|\xff[\xf0\xf1\xf8\xf9]", re.DOTALL)
DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,amr,mp3,flac,ogg"         # FFmpeg's others may open further files
OGG_PAGE = 65307             # bytes, at most
OGG_HEAD = re.compile(rb"OggS\0([\0-\7])", re.DOTALL)
MOST_LOST = 0.02             # of a recording may be missing
CODEC_DELAY = 0.1            # s by which a container may announce more than its sound
LONGEST_PAUSE = 0.45         # s between two packets of a pause
BROKEN_OFF = ("Packet corrupt", "partial file", "ended prematurely", "moov atom not found")   # in FFmpeg's log
DAMAGED = ("invalid as first byte of an EBML number",)                # likewise


@contextlib.contextmanager
def open_container(path):
    """Open what PyAV reads; yield the first sound track that it decodes and FFmpeg's log, a list that grows.

    Raises InputError, also for what is raised inside.
    """
    options = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}
    with av.logging.Capture() as log:
        try:
            with av.open(f"file:{path}", container_options=options, metadata_errors="replace") as container:
                tracks = [track for track in container.streams.audio if track.codec_context]     # None: no decoder
                if not tracks:
                    raise InputError(f"{path} holds no sound track that can be decoded")
                yield tracks[0], log
        except InputError:
            raise
        except (av.FFmpegError, ArithmeticError, LookupError, OSError, MemoryError, RuntimeError, ValueError) as error:
            errors = [message.strip() for level, _, message in log if level <= av.logging.ERROR]
            words = errors[-1] if errors else getattr(error, "strerror", None) or error
            words = "Format not recognised." if "not on whitelist" in str(words) else words
            problem = "is cut short" if logged(log, BROKEN_OFF) else "cannot be read"
            raise InputError(f"{path} {problem}: {words}") from error


def read_container(track, log):
    """Return the mean (S,) of a sound track's channels, its rate in Hz, and what is wrong with its file or None.

    Packets that cannot be decoded are left out; up to MOST_LOST of all may be.
    """
    parts, rates, decoded, starts, end, decode = [], set(), [], [], 0.0, decoder_of(track)
    for packet in track.container.demux():
        if packet.pts is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))         # s, of any track
        if packet.stream is not track:                      # a flushing packet has no index
            continue
        if packet.pts is not None and not packet.is_discard:                 # what an edit list leaves out is not lost
            starts.append(float(packet.pts * packet.time_base))
        try:
            for frame in decode(packet):
                if frame.layout.nb_channels > 2:
                    keep_alive(frame.layout)
                parts.append(samples_of(frame))
                rates.add(frame.sample_rate)
            decoded += [True] * (packet.size > 0)
        except av.FFmpegError:
            decoded.append(False)
    if len(rates) > 1:
        raise InputError(f"{track.container.name.removeprefix('file:')} changes its sampling rate: {sorted(rates)} Hz")
    wave = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    rate = max(rates, default=track.rate)
    problem = container_problem(track.container, log, decoded, end)
    return wave, rate, problem or hole_problem(track, np.sort(starts), len(wave) / max(rate, 1))


def decoder_of(track):
    """Return what decodes the packets of a track: of AMR, a decoder that knows pauses which were not sent (DTX)."""
    name = f"libopencore_{track.codec_context.name}"
    try:
        decoder = av.CodecContext.create(name, "r")
    except ValueError:                                      # there is no such decoder
        return lambda packet: packet.decode()
    return lambda packet: decoder.decode(packet if packet.size else None)


def keep_alive(layout):
    """Keep the layout of a frame for ever: PyAV 18.1 frees the channel map of some twice, which ends the process."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(layout))


def hole_problem(track, starts, heard):
    """Say how the times (P,) in s at which a track's packets start show that less was heard, or return None.

    The pauses of an Opus track need not be there (DTX, RFC 7587, 3.1.3), but for a packet every 0.4 s.
    """
    gaps = np.diff(starts)
    lasting = gaps.sum()
    pauses = "opus" in track.codec_context.name and gaps.max(initial=0) < LONGEST_PAUSE
    if lasting - heard > max(MOST_LOST * lasting, CODEC_DELAY) and not pauses:
        return f"damaged: {heard:.2f} of {lasting:.2f} s are there"
    return None


@np.errstate(invalid="ignore", over="ignore")                               # load_audio refuses what is not finite
def samples_of(frame):
    """Return the mean (S,) of the channels of PyAV's frame, full scale is 1.

    Its own conversion reads beyond the planes of eight channels.
    """
    kind, channels = np.dtype(av.audio.frame.format_dtypes[frame.format.name]), frame.layout.nb_channels
    if frame.format.is_planar:
        samples = np.stack([np.frombuffer(plane, kind, frame.samples) for plane in frame.planes[:channels]])
    else:
        samples = np.frombuffer(frame.planes[0], kind, frame.samples * channels).reshape(-1, channels).T
    if samples.dtype.kind in "iu":
        samples = samples / 2.0 ** (8 * samples.itemsize - 1) - (samples.dtype.kind == "u")
    return samples.mean(axis=0).astype(np.float32)


def container_problem(container, log, decoded, end):
    """Say how a container that was read up to `end` (s) shows that its end is missing, or return None.

    `decoded` tells whether each packet could be decoded. A length that FFmpeg estimates from the bit rate, as for AAC
    and AMR, is none that the file announces; what browsers record on the fly announces none.
    """
    is_ogg, path = container.format.name == "ogg", container.name.removeprefix("file:")
    if logged(log, BROKEN_OFF) or not all(decoded[-1:]) or (is_ogg and not has_last_page(path)):
        return "cut short: its last packet is broken off"
    if logged(log, DAMAGED):
        return "damaged: a part of it cannot be read"
    begun = 0 if "matroska" in container.format.name else container.start_time or 0           # in µs; its length has it
    seconds = end - begun / 1e6
    announced = (container.duration or 0) / 1e6
    lost = announced - seconds > max(MOST_LOST * announced, CODEC_DELAY)
    if lost and not any("Estimating duration" in message for *_, message in log):
        return f"cut short: {seconds:.2f} of {announced:.2f} s are there"
    failed = decoded.count(False)
    if failed > MOST_LOST * len(decoded):
        return f"damaged: {failed} of {len(decoded)} packets cannot be decoded"
    return None


def has_last_page(path):
    """Tell whether an Ogg file ends with a whole page that says it is the last (RFC 3533, 6): FFmpeg does not ask."""
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - 2 * OGG_PAGE))
        page = b"OggS" + file.read().rpartition(b"OggS")[2]
    sizes = page[27:27 + page[26]] if len(page) > 26 else b""
    return bool(page[5:6] > b"" and page[5] & 4) and len(page) >= 27 + len(sizes) + sum(sizes)


def is_chained(path):
    """Tell whether an Ogg file holds streams one behind the other (RFC 3533, 4): a first page comes behind others."""
    firsts = [page[1][0] & 2 for page in OGG_HEAD.finditer(pathlib.Path(path).read_bytes())]
    return firsts != sorted(firsts, reverse=True)


def logged(log, signs):
    """Tell whether one of some signs is in FFmpeg's log."""
    return any(sign in message for *_, message in log for sign in signs)
