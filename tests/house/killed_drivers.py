"""Every driver in processes that die by SIGKILL at random moments, and once more to its end.

Moments are times on odd numbers, and on even ones the eve of an operation on a file of the run:
there dying costs most.
"""

import os
import random
import signal
import time

from trials import CALLS, begin, end, trial, under
from watched import watch

from lowland.results import write_json


def whole(name, folder):
    """An undisturbed run, and how often it changed a file."""
    operations = []
    watch(lambda event, file: under(folder / "out", file) and operations.append(file))
    trial(name, folder)
    write_json(folder / "operations.json", len(operations))


def dies_at_operation(name, folder, last):
    operations = []

    def die(event, file):
        if under(folder / "out", file):
            operations.append(file)
            if len(operations) > last:
                os.kill(os.getpid(), signal.SIGKILL)

    watch(die)
    trial(name, folder)


def dies_after(name, folder, seconds):
    child = begin(trial, name, folder)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return end(child)


def kill_and_go_on(name, out, times):
    draw = random.Random(name)
    start = time.monotonic()
    codes = [end(begin(whole, name, out / "whole"))]
    seconds = time.monotonic() - start
    operations = int((out / "whole" / "operations.json").read_text())
    for number in range(times):
        folder = out / str(number)
        for _ in range(1 + number // 2 % 2):
            if number % 2:
                codes.append(dies_after(name, folder, draw.uniform(0, seconds)))
            else:
                last = draw.randrange(operations)
                codes.append(end(begin(dies_at_operation, name, folder, last)))
        codes.append(end(begin(trial, name, folder)))
    write_json(out / "codes.json", codes)


def main(out, times):
    """Leave in ``OUT/<driver>/<number>`` what each ended with, and undisturbed in ``whole``."""
    for name in CALLS:
        kill_and_go_on(name, out / name, times)
