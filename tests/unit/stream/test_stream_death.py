"""How a worker ended, in words."""

import signal

import pytest

from dmpd.stream.death import oom_kills, sentence


@pytest.mark.parametrize(
    ("status", "killed_because", "said", "memory_ran_out", "expected"),
    [
        (70 << 8, "", "handler failed: ValueError: no", False, "exit status 70: handler failed: ValueError: no"),
        (3 << 8, "", "", False, "exit status 3"),
        (signal.SIGKILL, "", "", False, "killed by SIGKILL, from outside"),
        (signal.SIGKILL, "", "", True, "killed by SIGKILL, maybe out of memory"),
        (signal.SIGKILL, "killed as stuck", "", False, "killed as stuck"),
        (signal.SIGSEGV, "", "", True, "ended by SIGSEGV"),
        (signal.SIGABRT | 0x80, "", "", False, "ended by SIGABRT"),  # with a core
        (signal.SIGRTMIN + 3, "", "", False, "ended by signal 37"),
        (None, "", "", False, "ended, how is not known"),
    ],
)
def test_it_is_a_sentence(status, killed_because, said, memory_ran_out, expected):
    found = sentence(status, killed_because=killed_because, said=said, memory_ran_out=memory_ran_out)
    assert found == expected


def test_the_kernels_count_is_read(tmp_path):
    vmstat = tmp_path / "vmstat"
    assert oom_kills(vmstat) == 0
    vmstat.write_text("nr_free_pages 5\noom_kill 17\noom_killer 3\n")
    assert oom_kills(vmstat) == 17
    vmstat.write_text("oom_kill many\n")
    assert oom_kills(vmstat) == 0
    assert oom_kills() >= 0
