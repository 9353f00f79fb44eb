"""The process that listens for the window."""
import pytest

import configuration
import record
import service
from configuration import InputError


def test_a_process_that_dies_is_an_error_and_no_wait(engine):
    assert engine("list_enrolled") == []
    with pytest.raises(InputError, match="cannot be read: "):
        engine("enroll", "Ana", __file__)
    with pytest.raises(InputError, match="this is a fault of the program, AttributeError"):
        engine("dance")
    engine.process.kill()
    with pytest.raises(InputError, match="the model's process has ended"):
        engine("list_enrolled")


def test_the_window_judges_what_it_heard(trained, corpus, tmp_path, monkeypatch):
    """Another program replaces the probe's file before the verdict; the verdict is on our own recording."""
    monkeypatch.chdir(tmp_path)
    voices = [str(corpus / "test" / name / "00.wav") for name in ("voice08", "voice09")]
    config = configuration.get_config(["--model_path", str(trained)])
    record.adopt_model(config)
    listener = service.Service(config)
    listener.load()
    listener.enroll("Ana", voices[0])
    own, save = listener.verify(voices[0]), record.save_probe
    monkeypatch.setattr(record, "save_probe", lambda config, wave, source: save(config, listener.sound(voices[1])[0]))
    assert listener.verify(voices[0]).scores == own.scores
    assert own.scores == [("Ana", pytest.approx(1, abs=1e-5))]
