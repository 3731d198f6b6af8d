"""Cells of a notebook run one after the other in one process, and may be interrupted.

No Jupyter is needed: what a kernel gives its cells is made here, a shell of its name in the
builtins, an event loop that runs, streams that are no terminals, widgets that note what they show.
"""

import asyncio
import builtins
import io
import signal
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch

from small_networks import generators, same

SETUP = """
import torch
from lowland.training import train

torch.manual_seed(0)
scale = 2.0  # closed over, as anything in a notebook
loss_fn = lambda output, target: scale * (output[:, 0] - target).square()
batches = [(torch.randn(8, 3), torch.randn(8)) for _ in range(4)]

def network():
    torch.manual_seed(1)
    return torch.nn.Linear(3, 1)

def sgd(params):
    return torch.optim.SGD(params, 0.01)
"""

INTERRUPTED = """
import signal

calls, model = 0, network()

def presses(times):  # somebody presses "interrupt" while a batch is computed
    def loss(output, target):
        global calls
        calls += 1
        if calls == 7:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        return loss_fn(output, target)
    return loss
"""


class ZMQInteractiveShell:
    """By this name a kernel's shell is known."""


class Widget:
    """Output of ipywidgets: what is printed inside of it is shown."""

    shown: list = []

    def __enter__(self):
        self.shown.append(self)

    def __exit__(self, *_):
        pass

    def clear_output(self, wait=False):
        pass


def module(name, **content):
    made = ModuleType(name)
    made.__spec__ = ModuleSpec(name, None)
    vars(made).update(content)
    return made


@pytest.fixture(params=[True, False], ids=["with widgets", "without widgets"])
def kernel(request, monkeypatch):
    """What stands around a cell; says whether there are widgets."""
    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    monkeypatch.setattr(Widget, "shown", [])
    display = module("IPython.display", display=lambda *_, **__: None)
    monkeypatch.setitem(sys.modules, "IPython", module("IPython", display=display))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    widgets = module("ipywidgets", Output=Widget) if request.param else None
    monkeypatch.setitem(sys.modules, "ipywidgets", widgets)
    return request.param


@contextmanager
def notebook():
    """Run cells in one namespace, inside of a loop that runs, as kernels do."""
    loop, names = asyncio.new_event_loop(), {"__name__": "__main__"}

    async def execute(source):
        exec(compile(source, "<cell>", "exec"), names)

    def cell(source):
        loop.run_until_complete(execute(source))
        return names

    cell.out, cell.error = io.StringIO(), io.StringIO()
    with torch.random.fork_rng(devices=[]), redirect_stdout(cell.out), redirect_stderr(cell.error):
        cell(SETUP)
        try:
            yield cell
        finally:
            loop.close()


@pytest.mark.parametrize("progress", [True, None, False])
def test_a_driver_runs_twice_with_a_display(progress, kernel):
    """Live where there are widgets; never a word of rich's about what is not installed."""
    with notebook() as cell:
        call = "train(network(), loss_fn, batches, epochs=3, optimizer=sgd, progress={})"
        first = cell(f"first = {call.format(progress)}")["first"]
        second = cell(f"second = {call.format(progress)}")["second"]
    assert first.status.name == second.status.name == "FINISHED"
    assert same(dict(first.state), dict(second.state))
    assert bool(Widget.shown) == (kernel and progress is not False)
    assert cell.out.getvalue() == ""


def test_lines_where_there_are_no_widgets(kernel, monkeypatch):
    """Every 30 seconds, on standard error, as in a log; none where the display is live."""
    monkeypatch.setattr("lowland.training.progress.SECONDS_BETWEEN_LINES", 0.0)
    with notebook() as cell:
        cell("train(network(), loss_fn, batches, epochs=1, optimizer=sgd, progress=True)")
    lines = cell.error.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines if line.startswith("training:")] == (
        [] if kernel else [f"training: {step}/4" for step in range(1, 5)]
    )


@pytest.mark.parametrize("progress", [True, False])
def test_an_interrupted_cell_goes_on(progress, kernel, tmp_path):
    """The same call ends with the weights of a run that nobody interrupted."""
    call = f"epochs=3, optimizer=sgd, out={str(tmp_path / 'run')!r}, progress={progress}"
    with notebook() as cell:
        cell(INTERRUPTED)
        stopped = cell(f"stopped = train(model, presses(1), batches, {call})")["stopped"]
        handler = signal.getsignal(signal.SIGINT)
        ended = cell(f"ended = train(network(), presses(0), batches, {call})")["ended"]
        whole = cell("whole = train(network(), loss_fn, batches, epochs=3, optimizer=sgd)")["whole"]
    assert stopped.status.name == "INTERRUPTED"
    assert "the same call goes on" in stopped.message
    assert stopped.steps == 7
    assert handler is signal.default_int_handler
    assert ended.status.name == "FINISHED"
    assert same(dict(ended.state), dict(whole.state))


def test_a_cell_that_is_interrupted_twice_ends_at_once(kernel):
    """By ``KeyboardInterrupt``; the model, the generators and the next cell are none the worse."""
    with notebook() as cell:
        names = cell(INTERRUPTED)
        names["model"].eval()
        before = generators()
        with pytest.raises(KeyboardInterrupt):
            cell("train(model, presses(2), batches, epochs=3, optimizer=sgd, progress=True)")
        assert same(generators(), before)
        assert not names["model"].training
        assert names["model"].weight.grad is None
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        again = "again = train(model, loss_fn, batches, epochs=1, optimizer=sgd, progress=True)"
        assert cell(again)["again"].status.name == "FINISHED"


ROOMS = """
from lowland.boosting import train_boosted
from lowland.connectivity import Cycle, Schedule, find_path
from lowland.control import train_msa
from lowland.dynamics import measure_dynamics
from lowland.importance import ImportanceSampling

x = torch.randn(24, 4)
batches = list(zip(x.split(8), (x[:, 0] > 0).long().split(8)))
smoothing = 0.1
loss_fn = lambda output, target: torch.nn.functional.cross_entropy(
    output, target, reduction="none", label_smoothing=smoothing
)

def deep(seed):
    torch.manual_seed(seed)
    layers = [torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Tanh()]
    layers += [torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(4, 2), torch.nn.BatchNorm1d(2))
"""
CALLS = {
    "find_path": "find_path(deep(0), loss_fn, batches, deep(1), deep(2), schedule=Schedule("
    "(Cycle(4, 0.1, insert='equal', count=2),), samples=2), progress=True)",
    "measure_dynamics": "measure_dynamics(deep(0), loss_fn, batches, steps=6, waits=[0, 2], "
    "lags=[1], noise_batches=2, progress=True)",
    "train_boosted": "train_boosted(deep(0), batches, epochs=1, progress=True)",
    "train_msa": "train_msa(deep(0), loss_fn, batches, steps=6, rho=0.3, progress=True)",
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")
@pytest.mark.parametrize("kernel", [False], indirect=True)
def test_cells_of_every_room(name, kernel):
    """With a closed-over lambda for a loss, twice; nothing starts a process or a prompt."""
    with notebook() as cell:
        cell(ROOMS)
        for _ in range(2):
            assert cell(f"found = {CALLS[name]}")["found"].status.name == "FINISHED"
    assert cell.out.getvalue() == ""
