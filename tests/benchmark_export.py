"""The encoder's other formats beside the one that listeners run: size, latency, parity, EER.

    python tests/benchmark_export.py [folder of recordings, one per speaker] [model folder]

Without a folder, synthetic voices of 8 speakers; the model is ./pretrained. Latency is the median for segments of 1.6 s
at a time, each runtime with the threads that it takes by itself, "original" and the LiteRT files through
embedding.Encoder. "largest difference" is that of any number of a d-vector from the original's, over all segments of
the recordings. Bars: 1e-4 for float formats; for int8 the EER changes by less than 0.3 points. Needs tf2onnx and
onnxruntime (tests/requirements.txt).
"""
import functools
import os
import pathlib
import statistics
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import voices

import configuration
import embedding
import model
import protocol
from common import tf

RUNS = 50


def read_formats(folder):
    """Return {name: (path, function of frames (B, T, 40) that returns d-vectors (B, D))} of an export."""
    import onnxruntime

    saved, session = tf.saved_model.load(str(folder / "saved_model")), onnxruntime.InferenceSession(
        folder / "encoder.onnx")
    serve = saved.signatures["serving_default"]
    return {"savedmodel": (folder / "saved_model", lambda frames: serve(tf.constant(frames))["d_vectors"].numpy()),
            "tflite": (folder / "encoder.tflite", embedding.Encoder(folder / "encoder.tflite")),
            "tflite, int8": (folder / "encoder_int8.tflite", embedding.Encoder(folder / "encoder_int8.tflite")),
            "onnx": (folder / "encoder.onnx", lambda frames: session.run(None, {"frames": frames})[0])}


def size_of(path):
    """Return the bytes of a file, or of all files in a folder."""
    return sum(part.stat().st_size for part in [path, *path.rglob("*")] if part.is_file())


def milliseconds(encoder, frames):
    """Return the median time that an encoder takes for frames (B, 160, 40)."""
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        encoder(frames)
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def print_table(formats, speakers, config):
    """Measure formats, {name: (path, encoder)}, of which the first is the original, on features.Speakers; print."""
    segments = np.concatenate([speaker.load() for speaker in speakers])                                # (K, 40, 180)
    frames = np.ascontiguousarray(segments[:32, :, :embedding.EMBED_FRAMES].swapaxes(1, 2))            # (32, 160, 40)
    _, original = next(iter(formats.values()))
    expected = embedding.embed_rows(original, segments)
    print(f"{len(speakers)} speakers, {len(segments)} segments")
    print("format         size (KB)   1 segment (ms)   32 segments (ms)   largest difference   EER (%)")
    for name, (path, encoder) in formats.items():
        difference = np.abs(embedding.embed_rows(encoder, segments) - expected).max()
        evaluation = protocol.evaluate(functools.partial(embedding.embed_speaker, encoder), speakers,
                                       config.utterance_number)
        print(f"{name:12} {size_of(path) / 1000:11.0f} {milliseconds(encoder, frames[:1]):16.2f} "
              f"{milliseconds(encoder, frames):18.2f} {difference:20.1e} {100 * evaluation.eer:9.3f}", flush=True)


def main():
    """Export and measure."""
    raw_path = pathlib.Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None
    source = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else ROOT / "pretrained").resolve()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        os.chdir(folder)                                            # where ./cache goes
        if raw_path is None:
            raw_path = folder / "voices"
            voices.write_corpus(raw_path, range(8), 10)
        for kind in ("savedmodel", "tflite", "onnx"):
            if model.main(["--model_path", str(source), "--export", str(folder / "export"), "--format", kind]):
                sys.exit(f"there is no {kind}")
        config = configuration.get_config(["--model_path", str(source), "--raw_path", str(raw_path)])
        encoder, stored = embedding.open_model(config)
        speakers, _ = protocol.speakers_to_test(config, stored)
        original = {"original": (embedding.find_export(source, config.model_num), encoder)}
        print_table(original | read_formats(folder / "export"), speakers, config)
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
