"""The process with the model: it answers in time, or the call fails, and the next one finds it well again."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from router.ner.process import Recogniser, Unavailable, recogniser

SCRIPTED = (sys.executable, str(Path(__file__).with_name("model.py")))


def scripted(name="good"):
    return Recogniser(name, SCRIPTED)


def pid(model):
    return model._process.pid


def alive(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_answers():
    model = scripted()
    assert model(["Al was here", "nobody"], 5) == [[(0, 2, "PERSON")], []]


@pytest.mark.parametrize("text", ["hang", "crash", "rubbish", "trickle"])
def test_no_answer_fails_in_time_and_the_next_call_is_answered(text):
    model = scripted()
    model.load()
    began = time.monotonic()
    with pytest.raises(Unavailable) as failure:
        model([text], 0.3)
    assert time.monotonic() - began < 2
    assert text not in str(failure.value)
    assert model(["Al"], 5) == [[(0, 2, "PERSON")]]


def test_a_text_that_the_model_cannot_read_fails_alone():
    model = scripted()
    model.load()
    number = pid(model)
    with pytest.raises(Unavailable, match="cannot read"):
        model(["cannot"], 5)
    assert model(["Al"], 5) == [[(0, 2, "PERSON")]]
    assert pid(model) == number


def test_a_stopped_process_does_not_hold_a_long_text_up():
    model = scripted()
    model.load()
    os.kill(pid(model), signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(Unavailable):
        model(["x" * 5_000_000], 0.3)
    assert time.monotonic() - began < 2
    assert model(["Al"], 5) == [[(0, 2, "PERSON")]]


def test_calls_wait_for_their_turn_no_longer_than_they_may():
    model = scripted()
    model.load()

    def hang():
        with pytest.raises(Unavailable):
            model(["hang"], 1.0)

    first = threading.Thread(target=hang)
    first.start()
    time.sleep(0.1)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="other calls"):
        model(["Al"], 0.2)
    assert time.monotonic() - began < 0.8
    first.join()


@pytest.mark.parametrize(("name", "reason"), [("missing", "no such model"), ("dies", "its process ended")])
def test_one_that_cannot_be_loaded_says_why(name, reason):
    with pytest.raises(Unavailable, match=reason):
        scripted(name).load()


def test_the_first_call_waits_for_the_model():
    assert scripted("slow-to-load")(["Al"], 0.5) == [[(0, 2, "PERSON")]]


def test_the_process_ends_with_its_owner_and_is_shared_until_then():
    model = recogniser("never-loaded")
    assert recogniser("never-loaded") is model
    own = scripted()
    own.load()
    number = pid(own)
    assert alive(number)
    del own
    gc.collect()
    assert not alive(number)
