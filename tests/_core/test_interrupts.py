"""Deferral of Ctrl-C."""

import signal
import threading

import pytest

from optax_extras._core.interrupts import interrupts_between_calls


def press():
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_is_raised_where_it_is_asked_for():
    with interrupts_between_calls() as raise_pending:
        raise_pending()
        press()
        with pytest.raises(KeyboardInterrupt):
            raise_pending()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_late_ctrl_c_is_raised_at_the_end():
    with pytest.raises(KeyboardInterrupt), interrupts_between_calls():
        press()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_is_raised_at_once():
    with interrupts_between_calls():
        press()
        with pytest.raises(KeyboardInterrupt):
            press()


def test_nested_contexts_share_one_deferral():
    with interrupts_between_calls() as outer:
        with interrupts_between_calls() as inner:
            press()
            with pytest.raises(KeyboardInterrupt):
                outer()
            press()
            with pytest.raises(KeyboardInterrupt):
                inner()
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler


def test_other_handlers_and_threads_are_left_alone():
    seen = []
    previous = signal.signal(signal.SIGINT, lambda *_: seen.append("own"))
    try:
        with interrupts_between_calls() as raise_pending:
            press()
            raise_pending()
    finally:
        signal.signal(signal.SIGINT, previous)
    assert seen == ["own"]

    def work():
        with interrupts_between_calls() as raise_pending:
            raise_pending()
            seen.append("thread")

    with interrupts_between_calls() as raise_pending:
        press()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        with pytest.raises(KeyboardInterrupt):
            raise_pending()
    assert seen == ["own", "thread"]
