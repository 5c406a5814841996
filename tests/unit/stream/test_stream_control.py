"""An order comes into the loop's turn and its outcome out of it; one that nobody took is not carried out later."""

import threading

import pytest

from dmpd.runtime.health import ActionRefusedError
from dmpd.stream.control import Control, Result, Target


def asking(control, verb, target):
    """Ask in another thread; returns the thread and where the answer will be."""
    found = []

    def ask():
        try:
            found.append(control.ask(verb, target))
        except ActionRefusedError as refusal:
            found.append(refusal)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, found


def serve_until(control, thread, carry_out):
    while thread.is_alive():
        control.serve(carry_out)
        thread.join(0.01)


def test_an_order_is_carried_out_in_the_loops_thread():
    control, seen = Control(), []

    def carry_out(request):
        seen.append((request.verb, request.target, threading.current_thread()))
        return {3: Result(changed=True, said="paused")}

    thread, found = asking(control, "pause", Target(partition=3))
    serve_until(control, thread, carry_out)
    assert found == [{3: Result(changed=True, said="paused")}]
    assert seen == [("pause", Target(partition=3), threading.main_thread())]


def test_a_refusal_reaches_who_asked():
    control = Control()

    def refuse(request):
        raise ActionRefusedError(409, "not here")

    thread, found = asking(control, "skip", Target(all=True))
    serve_until(control, thread, refuse)
    assert (found[0].code, found[0].sentence) == (409, "not here")


def test_a_failure_is_the_loops_and_who_asked_is_not_left_waiting():
    control = Control()

    def fail(request):
        raise RuntimeError("broken")

    thread, found = asking(control, "skip", Target(all=True))
    with pytest.raises(RuntimeError, match="broken"):
        serve_until(control, thread, fail)
    thread.join()
    assert found[0].code == 500


def test_an_order_that_the_loop_did_not_come_to_is_withdrawn():
    control = Control(timeout_s=0.05)
    with pytest.raises(ActionRefusedError) as caught:
        control.ask("pause", Target(all=True))
    assert caught.value.code == 503
    assert "nothing was done" in caught.value.sentence
    control.serve(lambda request: pytest.fail("carried out"))


@pytest.mark.parametrize("arguments", [{}, {"partition": 1, "all": True}, {"partition": None, "all": False}, {"x": 1}])
def test_an_order_names_one_partition_or_all(arguments):
    with pytest.raises(ActionRefusedError) as caught:
        Control().actions()["/stream/pause"](arguments)
    assert caught.value.code == 400
