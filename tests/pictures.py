"""The pictures in docs/: the window with a verdict, and the top of a report; both of the pretrained model.

    python tests/pictures.py ../shared/corpus/test

The folder has a folder of recordings per speaker. Needs Xvfb and Chromium.
"""
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import types

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import tkinter

import matplotlib.image
import numpy as np
from test_gui import photograph, start_screen

import audio
import configuration
import gui
import record
import service
import test

NAMES = ("Anna", "Ben", "Clara", "David", "Eva")
TAKES = 5                    # recordings that each of them enrols


def settle(app):
    """Let the window live until nothing is left to do."""
    deadline = time.monotonic() + 60
    while app.busy or app.pictures.drawing or not app.worker.jobs.empty() or not app.worker.results.empty():
        if time.monotonic() > deadline:
            sys.exit(f"the window does not come to rest: {app.message['text']}")
        app.root.update()
        time.sleep(0.01)


def photograph_window(raw_path, folder):
    """Enrol five speakers of raw_path, ask who speaks, and return the window's picture (H, W, 3)."""
    config = configuration.get_config(["--model_path", str(ROOT / "pretrained"), "--enroll_path", f"{folder}/enroll",
                                       "--verify_path", f"{folder}/verify"])
    record.adopt_model(config)
    speakers = sorted(path for path in raw_path.iterdir() if path.is_dir())[:len(NAMES)]
    for name, speaker in zip(NAMES, speakers, strict=True):
        for file in audio.audio_files(speaker)[0][:TAKES]:
            record.enroll(config, name, audio.load_audio(speaker / file, config.sr))
    server, display = start_screen(folder)
    engine = service.Engine(config)
    try:
        root = tkinter.Tk(screenName=display)
        root.tk.call("tk", "scaling", 96 / 72)
        app = gui.App(root, config, record.blocks, engine, lambda rescan=False: [
            record.Device(0, "Built-in microphone", 48000.0, True)])
        root.update()
        settle(app)
        app.speakers.list.selection_set(NAMES[2])
        app.probe.question.set("who")
        app.verify(str(speakers[2] / audio.audio_files(speakers[2])[0][TAKES + 1]))
        settle(app)
        root.update()
        picture = photograph(types.SimpleNamespace(folder=folder), root.winfo_width(), root.winfo_height()).copy()
        app.close()
    finally:
        engine.close()
        server.terminate()
        server.wait()
    return picture


def photograph_report(raw_path, folder):
    """Evaluate the pretrained model on raw_path and return a picture (H, W, 4) of the top of the report."""
    if test.main(["--model_path", "pretrained", "--raw_path", str(raw_path), "--report_path", str(folder)]):
        sys.exit("there is no report")
    subprocess.run(["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=900,985",
                    f"--user-data-dir={folder}/chromium", f"--screenshot={folder}/page.png",
                    f"file://{folder}/report.html"], check=True, capture_output=True)
    return matplotlib.image.imread(folder / "page.png")


def save(picture, path):
    """Write a picture of 64 colours at the most as PNG: what is drawn here has few, and the file is small."""
    import PIL.Image

    levels = np.uint8(picture * 255) if picture.dtype.kind == "f" else picture
    PIL.Image.fromarray(levels[..., :3]).quantize(64, dither=PIL.Image.Dither.NONE).save(path, optimize=True)
    print(path, path.stat().st_size, "bytes")


def main():
    """Write docs/window.png and docs/report.png."""
    raw_path = pathlib.Path(sys.argv[1]).resolve()
    os.chdir(ROOT)
    for name, take in (("window", photograph_window), ("report", photograph_report)):
        with tempfile.TemporaryDirectory() as folder:
            save(take(raw_path, pathlib.Path(folder)), ROOT / "docs" / f"{name}.png")


if __name__ == "__main__":
    main()
