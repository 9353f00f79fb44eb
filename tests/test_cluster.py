"""Preprocessing on a cluster: a Dask scheduler and two workers on this machine."""
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

import common
import data_preprocess

ROOT = pathlib.Path(common.__file__).parent


def start(*command, cwd, path=ROOT):
    """Start a process of Dask in a folder that is not the project's, which PYTHONPATH names."""
    return subprocess.Popen([sys.executable, "-m", *command], cwd=cwd, env=os.environ | {"PYTHONPATH": str(path)},
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def start_scheduler(folder, path=ROOT):
    """Start a scheduler; return its process and its address."""
    address = folder / "scheduler.json"
    process = start("distributed.cli.dask_scheduler", "--port", "0", "--host", "127.0.0.1", "--dashboard-address",
                    "127.0.0.1:0", "--scheduler-file", str(address), cwd=folder, path=path)
    while not address.exists():
        assert process.poll() is None
        time.sleep(0.1)
    return process, common.read_json(address)["address"]


def stop(*processes):
    for process in processes:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def cluster(tmp_path):
    """The address of a scheduler, and its two workers, processes of one thread each."""
    scheduler, address = start_scheduler(tmp_path)
    workers = [start("distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard", cwd=tmp_path)
               for _ in range(2)]
    yield address, workers
    stop(scheduler, *workers)


def flags_of(corpus, folder, *more):
    return ["--raw_path", str(corpus), "--train_path", str(folder / "train"), "--test_path", str(folder / "test"),
            "--copies", "2", *more]


def contents(folder):
    """Return {path: bytes} of the features below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.suffix in (".npy", ".json")}


@pytest.fixture(scope="module")
def made_here(corpus, tmp_path_factory):
    """The same features, made by the processes of this machine."""
    folder = tmp_path_factory.mktemp("here")
    assert data_preprocess.main(flags_of(corpus, folder, "--jobs", "1")) == 0
    return contents(folder)


def test_a_cluster_makes_the_same_bytes(corpus, made_here, cluster, tmp_path, monkeypatch):
    """With paths that are relative to a folder in which the workers did not start."""
    monkeypatch.chdir(corpus.parent)
    flags = flags_of(corpus.relative_to(corpus.parent), tmp_path / "there", "--scheduler", cluster[0])
    assert data_preprocess.main(flags) == 0
    assert contents(tmp_path / "there") == made_here


def test_a_lost_worker_loses_nothing(corpus, made_here, cluster, tmp_path):
    address, workers = cluster
    command = [sys.executable, str(ROOT / "data_preprocess.py"), *flags_of(corpus, tmp_path / "there", "--scheduler",
                                                                           address)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "there").glob("train/*.npy")):
        assert running.poll() is None
        time.sleep(0.02)
    os.killpg(workers[0].pid, signal.SIGKILL)
    _, errors = running.communicate(timeout=120)
    assert running.returncode == 0, errors
    assert contents(tmp_path / "there") == made_here


@pytest.mark.parametrize("address", ["foo", "http://localhost:8786", "localhost:port"])
def test_an_address_that_is_none_is_named_at_once(corpus, tmp_path, capsys, address):
    assert data_preprocess.main(flags_of(corpus, tmp_path, "--scheduler", address)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: --scheduler is {address}: ")
    assert error.endswith("; name an address such as tcp://HOST:8786")


def test_a_scheduler_that_is_not_there_is_named(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(common, "CLUSTER_SECONDS", 1)
    assert data_preprocess.main(flags_of(corpus, tmp_path, "--scheduler", "tcp://127.0.0.1:9")) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: --scheduler is tcp://127.0.0.1:9: the cluster does not answer")


def test_a_scheduler_that_does_not_know_this_project_is_named(corpus, tmp_path, capsys):
    """It could not read what it is given, and nothing would ever come of it."""
    scheduler, address = start_scheduler(tmp_path, path=tmp_path)
    try:
        assert data_preprocess.main(flags_of(corpus, tmp_path, "--scheduler", address)) == 2
    finally:
        stop(scheduler)
    error = capsys.readouterr().err.splitlines()[-1]
    assert "it does not run with PYTHONPATH=. in this project's folder (ModuleNotFoundError: No module named" in error


def test_without_dask_the_command_that_installs_it_is_named(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert data_preprocess.main(flags_of(corpus, tmp_path, "--scheduler", "tcp://127.0.0.1:9")) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(": pip install distributed")
