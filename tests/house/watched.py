"""Every driver and piece, watched for files that they change and for the network."""

import os
import sys
import tempfile
from pathlib import Path

from rooms import pieces
from trials import CALLS, begin, end, loader, trial, under, with_dropout

from lowland.results import write_json
from small_networks import losses

CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
OPERATIONS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link",
              "os.symlink", "os.chmod"}  # fmt: skip
NETWORK = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto",
           "socket.bind", "urllib.Request"}  # fmt: skip


def watch(act):
    """Call ``act(event, file)`` before every change of a file, and with None for the network.

    A hook stays for the rest of a process. It sees what Python does, not what C does by itself.
    """

    def hook(event, arguments):
        if event in NETWORK:
            act(event, None)
        elif event in OPERATIONS or (event == "open" and (arguments[2] or 0) & CHANGES):
            if isinstance(arguments[0], str | os.PathLike):
                act(event, os.fspath(arguments[0]))
            if event in ("os.rename", "os.link", "os.symlink"):
                act(event, os.fspath(arguments[1]))

    sys.addaudithook(hook)


def work(call, folder):
    """Once, with all that happens outside of the folder."""
    sys.dont_write_bytecode = True
    outside, known = [], (str(folder), os.devnull)

    def note(event, file):
        if file is None or not (file in known or under(folder, file)):
            outside.append([event, file])

    home = folder / "home"
    home.mkdir(parents=True)
    os.environ["HOME"] = str(home)
    os.chdir(home)
    tempfile.tempdir = str(folder / "tmp")
    Path(tempfile.tempdir).mkdir()
    watch(note)
    call(folder)
    left = [str(file.relative_to(home)) for file in home.rglob("*")]
    write_json(folder / "watched.json", {"outside": outside, "home": left})


def piece(call):
    return lambda folder: call(with_dropout(), losses, loader())


def driver(name):
    return lambda folder: trial(name, folder, progress=True)


def main(out):
    """Leave in ``OUT/<name>/watched.json`` what happened outside of ``OUT/<name>``.

    Each is called in ``OUT/<name>/home``.
    """
    works = {name: driver(name) for name in CALLS}
    works |= {name: piece(call) for name, call in pieces().items()}
    for name, call in works.items():
        if end(begin(work, call, out / name)):
            sys.exit(f"{name} failed")
