"""--download: a public corpus from a server on loopback; what is wrong with server or archive leaves nothing behind."""
import contextlib
import hashlib
import http.server
import io
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tarfile
import threading

import filelock
import numpy as np
import pytest
import soundfile
import voices

import common
import configuration
import data_preprocess
import features

ROOT = pathlib.Path(data_preprocess.__file__).parent
NAME, PART = "librispeech-dev-clean", "LibriSpeech/dev-clean"
CHAPTERS = {"84": ("121123", "121550"), "174": ("50561", "84280")}
COMMAND = """import sys, data_preprocess
data_preprocess.CORPORA[{name!r}] = ({url!r}, {md5!r})
sys.exit(data_preprocess.main(sys.argv[1:]))"""


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`, whole or as `mode` says, and counts the requests."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.mode, self.requests = b"", "whole", 0
        self.half_sent, self.closing = threading.Event(), threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.requests += 1
        if server.mode == "missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(server.content)))
        self.end_headers()
        self.wfile.write(server.content[:None if server.mode == "whole" else len(server.content) // 2])
        self.wfile.flush()
        server.half_sent.set()
        if server.mode == "stalled":
            server.closing.wait(60)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.closing.set()
        server.shutdown()


@pytest.fixture
def serve(server, monkeypatch):
    """Return a function that makes this archive the corpus NAME."""

    def offer(content, port=server.server_port):
        server.content = content
        place = f"http://127.0.0.1:{port}/dev-clean.tar.gz", hashlib.md5(content, usedforsecurity=False).hexdigest()
        monkeypatch.setitem(data_preprocess.CORPORA, NAME, place)
        return place

    return offer


@pytest.fixture(scope="module")
def files():
    """{name in the archive: content}: two speakers, two chapters each, two utterances each."""
    found = {f"LibriSpeech/{text}.TXT": b"CC BY 4.0" for text in ("LICENSE", "SPEAKERS")}
    for number, (speaker, chapters) in enumerate(CHAPTERS.items()):
        voice = voices.make_voice(np.random.default_rng(number))
        for chapter in chapters:
            found[f"{PART}/{speaker}/{chapter}/{speaker}-{chapter}.trans.txt"] = b"WORDS"
            for take in range(2):
                flac = io.BytesIO()
                soundfile.write(flac, voices.utterance(voice, 1.5, np.random.default_rng(take)), voices.SR,
                                format="FLAC")
                found[f"{PART}/{speaker}/{chapter}/{speaker}-{chapter}-{take:04}.flac"] = flac.getvalue()
    return found


def packed(files, *more):
    """Return the bytes of a .tar.gz of {name: content}, and of further members (name, type, target or content)."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, kind, content in more:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                member.size = len(content)
            else:
                member.linkname = content
            archive.addfile(member, io.BytesIO(content) if kind == tarfile.REGTYPE else None)
    return packed.getvalue()


def flags(folder, *more):
    paths = ["--raw_path", folder / "raw", "--train_path", folder / "train", "--test_path", folder / "test"]
    return ["--download", NAME, *map(str, paths), "--jobs", "1", "--test_ratio", "0", *more]


def tree(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_one_command_fetches_unpacks_and_preprocesses(server, serve, files, tmp_path, capsys):
    serve(packed(files))
    (tmp_path / "raw").mkdir()                                       # an empty folder will do
    assert data_preprocess.main(flags(tmp_path)) == 0
    assert server.requests == 1
    written = {path.relative_to(tmp_path / "raw").as_posix(): path.read_bytes()
               for path in (tmp_path / "raw").rglob("*") if path.is_file() and path.name != ".origin.json"}
    assert written == {name.removeprefix("LibriSpeech/").removeprefix("dev-clean/"): content
                       for name, content in files.items()}
    assert len(written) == 2 + 4 * 3
    speakers, _ = features.load_features(tmp_path / "train")
    assert [speaker.name for speaker in speakers] == ["174", "84"]
    for speaker in speakers:
        assert [utterance.session for utterance in speaker.voiced] == sorted(2 * CHAPTERS[speaker.name])
        assert len(speaker.load()) >= 4
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "train"}
    out, err = capsys.readouterr()
    assert "ignored: .txt" in out
    assert "Downloading" not in err                                  # pooch's own words
    assert data_preprocess.main(flags(tmp_path)) == 0
    assert server.requests == 1


def test_without_download_nothing_is_fetched(server, serve, files, tmp_path, fails):
    serve(packed(files))
    assert "there is no such folder" in fails(data_preprocess.main, *flags(tmp_path)[2:])
    assert server.requests == 0


@pytest.mark.parametrize("held", ["speaker", "another corpus", "file", "current"])
def test_a_folder_of_anything_else_is_refused_before_the_download(server, serve, files, tmp_path, fails, held,
                                                                  monkeypatch):
    serve(packed(files))
    raw, words = tmp_path / "raw", "needs a new folder"
    raw.mkdir()
    if held == "speaker":
        voices.write_corpus(raw, [0], 1, (1.0, 1.5))
    elif held == "another corpus":
        common.write_json(raw / ".origin.json", {"corpus": "librispeech-test-clean"})
        words = "that is librispeech-test-clean; name another folder"
    elif held == "file":
        raw.rmdir()
        raw.touch()
        words = "Not a directory"
    else:
        monkeypatch.chdir(raw)
    before = tree(tmp_path)
    assert words in fails(data_preprocess.main, *flags(tmp_path))
    assert server.requests == 0
    assert tree(tmp_path) == before


def test_another_checksum(server, serve, files, tmp_path, fails, monkeypatch):
    url, md5 = serve(packed(files))
    monkeypatch.setitem(data_preprocess.CORPORA, NAME, (url, "0" * 32))
    line = fails(data_preprocess.main, *flags(tmp_path))
    assert all(words in line for words in ("dev-clean.tar.gz", f"expected md5:{'0' * 32} but got {md5}", "Run again"))
    assert tree(tmp_path) == set()
    serve(server.content)
    assert data_preprocess.main(flags(tmp_path)) == 0


@pytest.mark.parametrize(("mode", "words"), [
    ("broken", "IncompleteRead"), ("stalled", "Read timed out"), ("missing", "404"), ("refused", "Connection refused")])
def test_a_server_that_fails(server, serve, files, tmp_path, fails, monkeypatch, mode, words):
    monkeypatch.setattr(data_preprocess, "SERVER_SECONDS", 0.5)
    server.mode = mode
    with socket.socket() as bound:                                   # that does not listen
        bound.bind(("127.0.0.1", 0))
        serve(packed(files), bound.getsockname()[1] if mode == "refused" else server.server_port)
        line = fails(data_preprocess.main, *flags(tmp_path))
    assert words in line
    assert "look at the connection and run again" in line
    assert server.requests == (mode != "refused")
    assert tree(tmp_path) == set()
    server.mode = "whole"
    serve(server.content)
    monkeypatch.setattr(data_preprocess, "SERVER_SECONDS", 30)
    assert data_preprocess.main(flags(tmp_path)) == 0


OUTSIDE = f"{PART}/84/121123/"
MALICIOUS = [
    ("../x.flac", tarfile.REGTYPE, b"x"), (f"{PART}/84/../../../../../x.flac", tarfile.REGTYPE, b"x"),
    ("{outside}/x.flac", tarfile.REGTYPE, b"x"), ("LibriSpeech/test-clean/84/1/84-1-0000.flac", tarfile.REGTYPE, b"x"),
    (f"{OUTSIDE}run.py", tarfile.REGTYPE, b"x"), ("LibriSpeech\\..\\x.flac", tarfile.REGTYPE, b"x"),
    (f"{OUTSIDE}84-121123-0002.flac\n", tarfile.REGTYPE, b"x"), (f"{OUTSIDE}\u0664.flac", tarfile.REGTYPE, b"x"),
    (f"{PART}/85", tarfile.SYMTYPE, "{outside}"), (f"{OUTSIDE}84-121123-0002.flac", tarfile.SYMTYPE, "/etc/passwd"),
    (f"{OUTSIDE}84-121123-0003.flac", tarfile.LNKTYPE, f"{OUTSIDE}84-121123-0000.flac"),
    (f"{OUTSIDE}84-121123-0004.flac", tarfile.CHRTYPE, ""), (f"{OUTSIDE}84-121123-0005.flac", tarfile.FIFOTYPE, ""),
    (f"{OUTSIDE}84-121123-0006.flac", tarfile.REGTYPE, bytes(20_000_000))]


@pytest.mark.parametrize(("name", "kind", "content"), MALICIOUS, ids=range(len(MALICIOUS)))
def test_a_malicious_member_is_named_and_leaves_nothing(serve, files, tmp_path, fails, name, kind, content):
    (tmp_path / "outside").mkdir()
    (tmp_path / "below").mkdir()
    name = name.replace("{outside}", str(tmp_path / "outside"))
    if kind == tarfile.SYMTYPE:
        content = content.replace("{outside}", str(tmp_path / "outside"))
    serve(packed(files, (name, kind, content), (f"{PART}/85/1/85-1-0000.flac", tarfile.REGTYPE, b"through the link")))
    line = fails(data_preprocess.main, *flags(tmp_path / "below"))
    assert f"{name!r}" in line
    assert "nothing was unpacked" in line
    assert tree(tmp_path) == {"outside", "below"}


def test_half_an_archive_with_the_right_checksum(serve, files, tmp_path, fails):
    whole = packed(files)
    serve(whole[:len(whole) // 2])
    assert "its archive cannot be unpacked" in fails(data_preprocess.main, *flags(tmp_path))
    assert tree(tmp_path) == set()


def test_ctrl_c_during_the_download(server, serve, files, tmp_path):
    url, md5 = serve(packed(files))
    server.mode = "stalled"
    process = subprocess.Popen([sys.executable, "-c", COMMAND.format(name=NAME, url=url, md5=md5), *flags(tmp_path)],
                               cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.half_sent.wait(60)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.strip().splitlines()[-1] == "stopped by the keyboard; run the same command again"
    assert "Traceback" not in err
    assert tree(tmp_path) <= {".raw.download", ".raw.download/.lock"}
    server.mode = "whole"
    assert data_preprocess.main(flags(tmp_path)) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "train"}


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_stop_while_unpacking_keeps_the_archive_alone(server, serve, files, tmp_path, monkeypatch, stop):
    serve(packed(files))
    extract, count = tarfile.TarFile.extract, iter(range(100))

    def stopped(self, member, path):
        extract(self, member, path)
        if next(count) == 5:
            raise stop

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extract", stopped)
        assert data_preprocess.main(flags(tmp_path)) == 2
    beside = tmp_path / ".raw.download"
    assert {path.name for path in beside.iterdir()} - {".lock"} == {"dev-clean.tar.gz"}
    assert {path.name for path in tmp_path.iterdir()} == {".raw.download"}
    (beside / "tmpabc" / PART).mkdir(parents=True)                   # what a killed run leaves
    (beside / "tmpdef").write_bytes(b"half an archive")
    assert data_preprocess.main(flags(tmp_path)) == 0
    assert server.requests == 1
    assert len(list((tmp_path / "raw").rglob("*.flac"))) == 8
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "train"}


def test_an_archive_that_is_left_and_not_whole_is_fetched_again(server, serve, files, tmp_path):
    content = packed(files)
    serve(content)
    (tmp_path / ".raw.download").mkdir()
    (tmp_path / ".raw.download" / "dev-clean.tar.gz").write_bytes(content[:1000])
    data_preprocess.download(NAME, tmp_path / "raw")
    assert server.requests == 1
    (tmp_path / ".raw.download").mkdir()                             # a run was killed after it had renamed the corpus
    data_preprocess.download(NAME, tmp_path / "raw")
    assert server.requests == 1
    assert {path.name for path in tmp_path.iterdir()} == {"raw"}


def test_two_programs_do_not_make_one_folder(server, serve, files, tmp_path, fails):
    serve(packed(files))
    (tmp_path / ".raw.download").mkdir()
    with filelock.FileLock(tmp_path / ".raw.download" / ".lock"):
        assert "another program is making" in fails(data_preprocess.main, *flags(tmp_path))
        assert (tmp_path / ".raw.download").exists()
    assert server.requests == 0


def test_a_link_to_the_folder_stays(server, serve, files, tmp_path):
    serve(packed(files))
    (tmp_path / "disk").mkdir()
    with contextlib.chdir(tmp_path):
        os.symlink("disk", "raw")
        data_preprocess.download(NAME, "raw")
    assert (tmp_path / "raw").is_symlink()
    assert (tmp_path / "disk" / "84" / "121123").is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "disk"}


def test_the_flag_offers_what_can_be_downloaded():
    assert configuration.flags()["download"].choices == tuple(data_preprocess.CORPORA)
    assert data_preprocess.CORPORA == {
        "librispeech-dev-clean": ("https://www.openslr.org/resources/12/dev-clean.tar.gz",
                                  "42e2234ba48799c1f50f24a7926300a1"),
        "librispeech-test-clean": ("https://www.openslr.org/resources/12/test-clean.tar.gz",
                                   "32fa31d27d2e1cad72775fee3f4849a9")}
