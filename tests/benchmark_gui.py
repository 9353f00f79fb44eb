"""How fast the window shows, how long it ever sleeps, how fast it answers; on a screen and a microphone of its own.

    python tests/benchmark_gui.py            the model in ./model
    python tests/benchmark_gui.py DIR        another model

Each round starts the window anew, with five synthetic voices enrolled. A gap is the time between two calls of a
callback that asks to be called again after 2 ms. A warm verification is the time from the choice of a file of 5 s to
the verdict on the screen. The gaps "verdict grows" are those while the probe is recorded and judged, once for each
question; those of "who speaks now" while the time line grows and then scrolls. Needs Xvfb, PulseAudio and PortAudio.
"""
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
import audio
import gui  # and no more than the window itself: the rest is imported where it is needed

ROUNDS = 3
VERIFICATIONS = 10
SECONDS = 5
LISTENING_SECONDS = 36       # the time line shows 30 s, then it scrolls
BARS = {"window shows (s)": 1.5, "model ready (s)": 1.0, "gap, loading (ms)": 100, "gap, verdict grows (ms)": 100,
        "gap, who speaks now (ms)": 100, "gap, verifying (ms)": 100, "gap, comparing (ms)": 100,
        "warm verification (ms)": 150}


class Gaps:
    """Ticks all the time; `longest` is the longest time between two ticks, in ms, since it was last asked for."""

    def __init__(self, root):
        self.root, self.last, self.worst = root, time.perf_counter(), 0.0
        self.tick()

    def tick(self):
        """Note the time since the last tick."""
        now = time.perf_counter()
        self.worst, self.last = max(self.worst, now - self.last), now
        self.root.after(2, self.tick)

    def longest(self):
        """Return the longest gap in ms, and forget it."""
        worst, self.worst = 1000 * self.worst, 0.0
        return worst


def live(app, until):
    """Let the window live, as mainloop does, until something holds."""
    while not until():
        app.root.tk.dooneevent(0)


def window(started, model_path, folder):
    """Open the window, use it, and print what was measured as JSON."""
    figures = {}

    def use(app):
        app.root.update()
        figures["window shows (s)"] = time.time() - started
        gaps = Gaps(app.root)

        def ready():
            return not app.busy and not app.pictures.drawing and app.worker.jobs.empty() and app.worker.results.empty()

        live(app, lambda: app.loaded)
        figures["model ready (s)"] = time.time() - started
        live(app, ready)
        figures["gap, loading (ms)"] = gaps.longest()
        measure_listening(app, gaps, figures, ready)
        times = []
        for _ in range(VERIFICATIONS):
            begun = time.perf_counter()
            app.verify(f"{folder}/probe.wav")
            live(app, lambda: not app.busy)
            app.root.update_idletasks()
            times.append(1000 * (time.perf_counter() - begun))
            live(app, ready)
        assert app.heard, app.message["text"]
        figures["warm verification (ms)"] = statistics.median(times)
        figures["gap, verifying (ms)"] = gaps.longest()
        app.tabs.select(1)
        app.root.update()
        live(app, ready)
        figures["gap, comparing (ms)"] = gaps.longest()
        app.close()

    apps, make = [], gui.App
    gui.App = lambda *arguments: apps.append(make(*arguments)) or apps[0]
    gui.tk.Tk.mainloop = lambda root: use(apps[0])
    gui.main(["--model_path", model_path, "--enroll_path", f"{folder}/enroll", "--verify_path", f"{folder}/verify",
              "--seconds", str(SECONDS)])
    print(json.dumps(figures))


def measure_listening(app, gaps, figures, ready):
    """Measure the gaps while a verdict grows, for both questions, and while the time line runs."""
    app.speakers.list.selection_set("voice00")
    app.probe.ends_when_sure.set(False)
    for question in ("claim", "who"):
        app.probe.question.set(question)
        app.probe.record_button.invoke()
        live(app, lambda: app.busy == "recording" and app.heard and app.heard.scores)
        live(app, lambda: app.busy != "recording")
        figures["gap, verdict grows (ms)"] = max(gaps.longest(), figures.get("gap, verdict grows (ms)", 0))
        live(app, ready)
        gaps.longest()              # of the picture, which belongs to verifying
    app.tabs.select(2)
    app.conversation.listen_button.invoke()
    live(app, lambda: app.conversation.seconds >= LISTENING_SECONDS)
    figures["gap, who speaks now (ms)"] = gaps.longest()
    assert len({moment.name for moment in app.conversation.timeline.moments}) > 1
    app.conversation.stop_button.invoke()
    live(app, ready)
    app.tabs.select(0)
    gaps.longest()


def enrol(folder, model_path):
    """Enrol five voices with three recordings each, and write a probe of the last; return its samples and rate."""
    import numpy as np
    import soundfile
    import voices

    import configuration
    import embedding
    import record

    config = configuration.get_config(["--model_path", model_path, "--enroll_path", f"{folder}/enroll"])
    embedding.adopt_model(config)
    for number in range(5):
        voice = voices.make_voice(np.random.default_rng([0, number]))
        for take in range(4):
            rng = np.random.default_rng([0, number, take + 1])
            path = f"{folder}/probe.wav"
            soundfile.write(path, np.resize(voices.utterance(voice, SECONDS, rng), SECONDS * voices.SR), voices.SR)
            if take < 3:
                record.enroll(config, f"voice{number:02}", audio.load_audio(path, config.sr))
    return soundfile.read(path, dtype="int16")


def main(argv):
    """Measure some rounds and print the table of medians."""
    if argv[:1] == ["window"]:
        return window(float(argv[1]), *argv[2:])
    from conftest import Microphone
    from test_gui import start_screen

    model_path = argv[0] if argv else "./model"
    with tempfile.TemporaryDirectory(prefix="gui") as folder:
        wave, sr = enrol(folder, model_path)
        server, display = start_screen(folder)
        microphone = Microphone(pathlib.Path(folder))
        microphone.start(sr)
        microphone.play(wave, sr)
        rounds = []
        try:
            for _ in range(ROUNDS):
                done = subprocess.run([sys.executable, __file__, "window", str(time.time()), model_path, folder],
                                      env=microphone.environment | {"DISPLAY": display}, stdout=subprocess.PIPE,
                                      text=True, check=True, timeout=120)
                rounds.append(json.loads(done.stdout))
        finally:
            microphone.stop()
            server.terminate()
            server.wait()
    print(f"{'':24}{'median':>10}{'bar':>8}   of {ROUNDS} rounds, {os.cpu_count()} cores")
    for name, bar in BARS.items():
        values = [figures[name] for figures in rounds]
        print(f"{name:24}{statistics.median(values):10.3g}{bar:8g}   {', '.join(f'{value:.3g}' for value in values)}")
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
