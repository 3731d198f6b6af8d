"""Commands that run side by side end as they would alone, and none outlives the one in charge."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from lowland import side_by_side
from lowland.side_by_side import Job, run_side_by_side


def test_every_command_ends_with_its_own_code_and_words():
    """One lists the recipes, two name what is not there: a process runs more than one of them."""
    wrong = ("show", "nothing2018")
    ended = run_side_by_side([Job("list", ("list",)), Job("wrong", wrong), Job("no", ("fly",))], 1)
    assert ended["list"] == (0, "")
    code, words = ended["wrong"]
    assert code == 2
    assert words.startswith("lowland: there is no recipe 'nothing2018'")
    assert ended["no"][0] == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_nobody_is_left_behind(error, monkeypatch):
    """After Ctrl-C, and after an error of our own, in the middle of a command."""

    def stop(seconds):
        raise error

    monkeypatch.setattr(side_by_side.time, "sleep", stop)
    with pytest.raises(error):
        run_side_by_side([Job(str(n), ("list",)) for n in range(3)], 2)
    assert multiprocessing.active_children() == []


CHILD = """
import os, sys, time
sys.path[:0] = {path!r}
from lowland.side_by_side import end_with_parent
end_with_parent()
print(os.getpid(), flush=True)
time.sleep(60)
"""
PARENT = """
import os, subprocess, sys, time
env = os.environ | {{"LOWLAND_PARENT": str(os.getpid())}}
subprocess.Popen([sys.executable, "-c", {child!r}], env=env)
time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "getppid"), reason="no parents here")
def test_a_child_ends_with_its_parent():
    """Also after SIGKILL, so that the same command finds its folders free."""
    code = PARENT.format(child=CHILD.format(path=sys.path))
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        time.sleep(0.1)
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        with open(f"/proc/{child}/stat") as stream:  # ended, and nobody has asked for its code
            if stream.read().split(")")[1].split()[0] == "Z":
                return
    pytest.fail("the child goes on")
