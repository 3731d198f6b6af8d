"""Commands that run side by side end as they would alone, and none outlives the one in charge."""

import os
import signal
import subprocess
import sys
import time

import pytest

from lowland import side_by_side
from lowland.side_by_side import Job, run_side_by_side


def test_every_command_ends_with_its_own_code():
    """One lists the recipes, one names a recipe that is not there."""
    jobs = [Job("list", ("list",)), Job("wrong", ("show", "nothing2018"))]
    ended = run_side_by_side(jobs, 2)
    assert ended["list"][0] == 0
    code, words = ended["wrong"]
    assert code == 2
    assert "there is no recipe 'nothing2018'" in words


def test_no_more_at_once_than_asked(monkeypatch):
    most = []

    class Sleeper:
        alive = 0

        def __init__(self):
            self.looks, self.returncode = 3, None
            Sleeper.alive += 1
            most.append(Sleeper.alive)

        def poll(self):
            self.looks -= 1
            if not self.looks:
                Sleeper.alive -= 1
                self.returncode = 0
            return self.returncode if self.looks <= 0 else None

    monkeypatch.setattr(side_by_side, "SECONDS_BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(side_by_side, "last_words", lambda one: "")
    monkeypatch.setattr(
        side_by_side, "started", lambda job: side_by_side.Running(job, Sleeper(), None)
    )
    ended = run_side_by_side([Job(str(n), ()) for n in range(5)], 2)
    assert list(ended) == ["0", "1", "2", "3", "4"]
    assert max(most) == 2


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
