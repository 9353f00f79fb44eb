"""What all rooms do alike: errors, progress, processes and Ctrl-C, libraries that load late, files."""
import concurrent.futures
import contextlib
import ctypes
import errno
import functools
import gc
import hashlib
import importlib
import importlib.metadata
import io
import json
import os
import pathlib
import platform
import secrets
import signal
import sys
import tempfile
import threading
import time

import tqdm

CLUSTER_SECONDS = 15                                        # that a cluster may take to answer
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1                 # of glibc's malloc.h
# What librosa imports and few of its functions use: 1.3 s and 240 MB of its 1.6 s and 310 MB.
DEFERRED = ("numba", "sklearn", "sklearn.cluster", "sklearn.decomposition", "sklearn.feature_extraction",
            "sklearn.neighbors", "scipy.interpolate", "scipy.ndimage", "scipy.optimize", "scipy.signal", "scipy.sparse",
            "scipy.spatial", "scipy.spatial.distance", "scipy.stats")
SOMEBODY = "somebody else"   # the name of who speaks and is not enrolled
STALE_SECONDS = 60           # since the last write to a temporary file that no program needs any more


class InputError(ValueError):
    """What the user gave cannot be used; the message names the thing, the value and the remedy in one line.

    Parameters
    ----------
    message : str
        In the words of the command line; line breaks in what it quotes become blanks.
    window : str, optional
        The same in the words of the window, where they differ.
    """

    def __init__(self, message, window=None):
        super().__init__(" ".join(message.splitlines()))
        self.window = " ".join((window or message).splitlines())


def print_skipped(losses, where=""):
    """Name the first 20 files that gave nothing on standard error; count the others, and say where these are named."""
    for loss in losses[:20]:
        print("skipped:", printable(loss), file=sys.stderr)
    if len(losses) > 20:
        print(f"skipped: {len(losses) - 20} more{where}", file=sys.stderr)


def printable(text):
    """Return a text with its control characters escaped: file names may hold some."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


# ---- long work --------------------------------------------------------------------------------------------------

def progress(iterable=None, **options):
    """Return a tqdm bar that a log file, unlike a terminal, shows only every 30 s."""
    return tqdm.tqdm(iterable, mininterval=0.1 if sys.stderr.isatty() else 30, dynamic_ncols=True, **options)


@contextlib.contextmanager
def interrupts_ignored():
    """Ignore Ctrl-C, as processes that start meanwhile do for good: whoever started them ends them."""
    if threading.current_thread() is not threading.main_thread():       # which alone may say so
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def interrupts_later():
    """Hold Ctrl-C back while files are written that belong together."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        signal.raise_signal(signal.SIGINT)


@contextlib.contextmanager
def without_garbage_collection():
    """Do not look for garbage while many objects are made that all stay: a fifth of the time goes there else."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def run_on_cores(function, arguments, jobs, *, ordered=True, scheduler=None):
    """Return an iterator over function(*each) of each of the arguments, computed by `jobs` processes; None: all cores.

    Where they are not `ordered`, results come as they are ready. With the address of a Dask scheduler, its workers
    compute them.
    """
    import joblib

    calls = (joblib.delayed(work_on)(function, *each) for each in arguments)
    return_as = "generator" if ordered else "generator_unordered"
    if scheduler:
        return run_on_cluster(calls, scheduler, return_as)
    with interrupts_ignored():      # else a worker that still starts prints a traceback of its own
        results = joblib.Parallel(n_jobs=jobs or -1, return_as=return_as)(calls)
    return while_workers_live(results)


def while_workers_live(results):
    """Yield the results; InputError where a worker was killed."""
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    try:
        yield from results
    except TerminatedWorkerError as error:
        raise InputError("a worker process was killed, most likely for lack of memory, or by a recording that crashes "
                         "its decoder: run again with --jobs 1 to go on") from error


def work_on(function, *arguments):
    """Return function(*arguments), in a process that keeps its memory."""
    keep_memory()
    return function(*arguments)


@functools.cache
def keep_memory():
    """Let this process keep up to 256 MB that it frees, for the next recording.

    glibc gives arrays of some 100 kB back to the system, which has to clear the pages of the next one: a fifth of the
    time that recordings take. Other C libraries have no mallopt.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 2**25)
        mallopt(M_TRIM_THRESHOLD, 2**28)


def run_on_cluster(calls, scheduler, return_as):
    """Yield the results of joblib's delayed calls, computed by the workers of a Dask scheduler at this address."""
    import joblib

    try:
        import distributed
    except ImportError as error:
        raise InputError(f"--scheduler is {scheduler}: Dask is needed for a cluster and cannot be loaded ({error}): "
                         "pip install distributed") from error
    try:
        distributed.comm.get_address_host_port(scheduler)
    except ValueError as error:
        raise InputError(f"--scheduler is {scheduler}: {error}; name an address such as tcp://HOST:8786") from error
    try:
        with (distributed.Client(scheduler, timeout=CLUSTER_SECONDS, set_as_default=False) as client,
              joblib.parallel_config("dask", client=client, wait_for_workers_timeout=CLUSTER_SECONDS)):
            client.run_on_scheduler(exec, "import common")      # it reads our work, too, and else waits for ever
            yield from joblib.Parallel(return_as=return_as)(calls)
    except (OSError, TimeoutError, ModuleNotFoundError, distributed.KilledWorker, distributed.comm.CommClosedError,
            concurrent.futures.CancelledError) as error:
        raise InputError(f"--scheduler is {scheduler}: the cluster does not answer, its workers are lost, or it does "
                         f"not run with PYTHONPATH=. in this project's folder ({type(error).__name__}: {error}); "
                         "run again to go on") from error


@contextlib.contextmanager
def quiet_libraries():
    """Keep what compiled libraries write to file descriptor 2; show it if another error than an InputError comes of it.

    Neither Ctrl-C nor a generator that is closed meanwhile is one.
    """
    kept = os.dup(2)
    with tempfile.TemporaryFile() as chatter:
        os.dup2(chatter.fileno(), 2)
        try:
            yield
        except (InputError, GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException:
            chatter.seek(0)
            os.write(kept, chatter.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def tensorflow():
    """Return TensorFlow, loaded without its chatter; InputError where it is not installed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with quiet_libraries():
            return importlib.import_module("tensorflow")
    except ImportError as error:
        raise InputError("TensorFlow is needed for training and export and cannot be loaded "
                         f"({str(error).splitlines()[0]}): pip install -r requirements.txt") from error


class LazyModule:
    """A module that load() returns when something of it is used for the first time, by whatever thread."""

    def __init__(self, load):
        self.load, self.module, self.lock = load, None, threading.RLock()

    def __getattr__(self, name):
        """Return an attribute of the module."""
        with self.lock:
            self.module = self.module or self.load()
        return getattr(self.module, name)


tf = LazyModule(tensorflow)      # who only listens never loads it


class Deferred:
    """A module, or what is taken from it or decorated with it while librosa loads; it is made when it is called."""

    loading = False

    def __init__(self, make):
        self.make = functools.cache(make)

    def __getattr__(self, name):
        """Return an attribute, deferred as well."""
        if name.startswith("__"):
            raise AttributeError(name)
        return Deferred(lambda: getattr(self.make(), name))

    def __call__(self, *arguments, **options):
        """Decorate later, while librosa loads; afterwards, put the real things into librosa's modules and call."""
        if Deferred.loading:
            return Deferred(lambda: self.make()(*arguments, **options))
        for name in [name for name in sys.modules if name.partition(".")[0] == "librosa"]:
            for attribute, value in list(vars(sys.modules[name]).items()):
                if isinstance(value, Deferred):
                    setattr(sys.modules[name], attribute, value.make())
        return self.make()(*arguments, **options)


def import_librosa():
    """Return librosa, whole, but for what it imports and only some of its functions use: that loads when they do."""
    absent = [name for name in DEFERRED if name not in sys.modules]
    sys.modules.update({name: Deferred(functools.partial(importlib.import_module, name)) for name in absent})
    Deferred.loading = True
    try:
        import librosa
        _ = librosa.filters.mel, librosa.resample, librosa.mel_frequencies, librosa.util.valid_audio
    finally:
        Deferred.loading = False
        for name in absent:
            sys.modules.pop(name, None)
    return librosa


librosa = LazyModule(import_librosa)


def import_av():
    """Return PyAV, whose log is kept for who captures it; InputError where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise InputError("recordings of telephones and browsers need PyAV, which cannot be loaded "
                         f"({str(error).splitlines()[0]}): pip install -r requirements-listen.txt") from error
    av.logging.set_level(av.logging.WARNING)
    av.logging.set_skip_repeated(False)
    return av


av = LazyModule(import_av)


def versions():
    """Return the versions of Python and of the libraries that figures depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in ("tensorflow", "keras", "ai-edge-litert", "librosa", "numpy", "scipy", "scikit-learn"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


# ---- files ---------------------------------------------------------------------------------------------------------

def short_digest(text):
    """Return 16 hexadecimal digits that depend on a text alone."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def wav_bytes(wave, sr, subtype="PCM_16"):
    """Return what a WAV file of samples (S,) holds: on a full disk, libsndfile's own writing prints tracebacks."""
    import soundfile
    file = io.BytesIO()
    soundfile.write(file, wave, sr, subtype, format="WAV")
    return file.getvalue()


def size_and_time(path):
    """Return size and time of a file, which tell that it changed; zeros for a link into nothing."""
    try:
        status = path.stat()
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def read_json(path, parse=None):
    """Return what a JSON file holds, or parse(that); None where there is no file.

    Raises InputError if it is no JSON that `write_json` could have written, or `parse` meets what it does not expect.
    """
    try:
        value = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        json_bytes(value, indent=None)
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    try:
        return parse(value) if parse else value
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is of another program, or damaged ({type(error).__name__}: {error})") from error


def private_folder(path):
    """Make a folder that only its owner may enter; say so where an older one is open to others. Returns its Path.

    What killed programs left there goes: it holds voices that nobody could forget.
    """
    path = pathlib.Path(path)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    remove_parts(path)
    if os.name == "posix" and path.stat().st_mode & 0o077:
        print(f"note: {path} is open to other users; close it with chmod 700 {path}", file=sys.stderr)
    return path


def write_whole(path, write, private=False):
    """Call write(file) on a temporary file beside `path` and rename it: the file is there whole or not at all.

    Only its owner may read a private one.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}.part")      # two programs may write at once
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0),
                             0o600 if private else 0o666)
        with open(descriptor, "w+b") as file:
            write(file)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(f"{path} cannot be written: {error.strerror}; make room there") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path):
    """Raise OSError where a file could not be written, without a change to what is there."""
    path = pathlib.Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    beside = path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}.part")
    write_whole(beside, lambda file: None)
    beside.unlink()


def check_target(flag, path, name="", others=()):
    """Raise InputError where the file that a flag names, or `name` in that folder, could not be written.

    Nor may the folder hold one of some other files, which show that it is another kind of folder.
    """
    for other in others:
        if pathlib.Path(path, other).exists():
            raise InputError(f"--{flag} is {path}: that holds {other}; name a folder of its own")
    file = pathlib.Path(path, name).absolute()
    nearest = next(folder for folder in file.parents if folder.exists())
    try:
        check_writable(file if file.is_dir() else nearest / file.name)
    except OSError as error:
        problem = f"cannot be written ({error.strerror})"
        raise InputError(f"--{flag} is {path}: it {problem}; name another one", f"{path} {problem}.") from error


def remove_parts(folder):
    """Remove the temporary files that killed programs left in a folder: those that nobody wrote to for a minute."""
    for part in pathlib.Path(folder).glob(".*.part"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > STALE_SECONDS:
                part.unlink()


def write_json(path, value, private=False):
    """Write a value as JSON, whole or not at all."""
    content = json_bytes(value)
    write_whole(path, lambda file: file.write(content), private)


def json_bytes(value, indent=1):
    """Return a value as JSON; ValueError where it holds a number that is not finite, InputError half of a character."""
    text = json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False) + "\n"
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        first, last = text.rfind('"', 0, error.start), text.find('"', error.end)
        raise InputError(f"{text[first + 1:last]!r} is not UTF-8; rename it") from error
