"""The pictures in docs/: the window with a verdict and while people talk, and the top of a report.

    python tests/pictures.py ../shared/corpus/test

The folder has a folder of recordings per speaker, whom the pretrained model hears. Needs Xvfb and Chromium.
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
from test_gui import photograph, settled, start_screen, wait

import audio
import configuration
import embedding
import gui
import record
import service
import test

NAMES = ("Anna", "Ben", "Clara", "David", "Eva")
TAKES = 5                    # recordings that each of them enrols
TURNS = (0, 2, 5, 1, 0)      # who talks, of the folder's speakers: the sixth is a stranger
TURN_TAKES = 2               # recordings of a turn
PATIENCE_SECONDS = 60        # until the window comes to rest


def heard_by(wave):
    """Return a microphone that hears samples (S,), faster than they were spoken, until it is stopped."""
    def microphone(sr, device=None, cancelled=None, lost=""):
        for block in np.split(wave, range(sr // 20, len(wave), sr // 20)):
            if not cancelled():
                yield block
                time.sleep(0.02)            # the window keeps up

    return microphone


def enrol_and_talk(config, speakers):
    """Enrol the first five speakers; return samples (S,) of the TURNS, and a recording of the third one."""
    files = [[speaker / file for file in audio.audio_files(speaker)[0]] for speaker in speakers]
    for name, own in zip(NAMES, files, strict=False):
        for file in own[:TAKES]:
            record.enroll(config, name, audio.load_audio(file, config.sr))
    turns = [files[who][TAKES:TAKES + TURN_TAKES] for who in TURNS]
    return np.concatenate([audio.load_audio(file, config.sr) for turn in turns for file in turn]), files[2][TAKES + 1]


def photograph_window(raw_path, folder):
    """Enrol speakers of raw_path, ask who speaks, let them talk; return both pictures of the window (H, W, 3)."""
    config = configuration.get_config(["--model_path", str(ROOT / "pretrained"), "--enroll_path", f"{folder}/enroll",
                                       "--verify_path", f"{folder}/verify"])
    embedding.adopt_model(config)
    talk, probe = enrol_and_talk(config, sorted(path for path in raw_path.iterdir() if path.is_dir()))
    server, display = start_screen(folder)
    engine = service.Engine(config)
    try:
        root = tkinter.Tk(screenName=display)
        root.tk.call("tk", "scaling", 96 / 72)
        app = gui.App(root, config, heard_by(talk), engine, lambda rescan=False: [
            record.Device(0, "Built-in microphone", 48000.0, True)])
        root.update()
        wait(app, settled(app), PATIENCE_SECONDS)
        app.speakers.list.selection_set(NAMES[2])
        app.probe.question.set("who")
        app.verify(str(probe))
        wait(app, settled(app), PATIENCE_SECONDS)
        pictures = [photograph_app(app, folder)]
        app.tabs.select(2)
        app.conversation.listen_button.invoke()
        wait(app, lambda: app.conversation.seconds > len(talk) / config.sr - 2, PATIENCE_SECONDS)
        pictures.append(photograph_app(app, folder))
        app.cancelled.set()
        wait(app, settled(app), PATIENCE_SECONDS)
        app.close()
    finally:
        engine.close()
        server.terminate()
        server.wait()
    return pictures


def photograph_app(app, folder):
    """Return the window's picture (H, W, 3) on a screen that keeps its own in `folder`."""
    app.root.update()
    return photograph(types.SimpleNamespace(folder=folder), app.root.winfo_width(), app.root.winfo_height()).copy()


def photograph_report(raw_path, folder):
    """Evaluate the pretrained model on raw_path and return the picture (H, W, 4) of the top of the report, alone."""
    if test.main(["--model_path", "pretrained", "--raw_path", str(raw_path), "--report_path", str(folder)]):
        sys.exit("there is no report")
    subprocess.run(["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=900,985",
                    f"--user-data-dir={folder}/chromium", f"--screenshot={folder}/page.png",
                    f"file://{folder}/report.html"], check=True, capture_output=True)
    return [matplotlib.image.imread(folder / "page.png")]


def save(picture, path):
    """Write a picture of 64 colours at the most as PNG: what is drawn here has few, and the file is small."""
    import PIL.Image

    levels = np.uint8(picture * 255) if picture.dtype.kind == "f" else picture
    PIL.Image.fromarray(levels[..., :3]).quantize(64, dither=PIL.Image.Dither.NONE).save(path, optimize=True)
    print(path, path.stat().st_size, "bytes")


def main():
    """Write docs/window.png, docs/talk.png and docs/report.png."""
    raw_path = pathlib.Path(sys.argv[1]).resolve()
    os.chdir(ROOT)
    for names, take in ((("window", "talk"), photograph_window), (("report",), photograph_report)):
        with tempfile.TemporaryDirectory() as folder:
            for name, picture in zip(names, take(raw_path, pathlib.Path(folder)), strict=True):
                save(picture, ROOT / "docs" / f"{name}.png")


if __name__ == "__main__":
    main()
