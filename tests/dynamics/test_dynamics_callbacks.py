"""Callbacks record what ``record`` in a loop by hand does, over checkpoints too."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch

import forked
from lowland.dynamics import hugging_face, lightning
from lowland.dynamics.recorder import TwoTimeRecorder
from lowland.results import plain
from small_networks import class_batches, losses, mlp, seeded

OPTIONS = {"waits": [0, 3, 6], "lags": [1, 4, 10]}


class Callback:
    """As much of a framework's callback as the mixins need."""

    def on_train_start(self, trainer, pl_module):
        raise AssertionError("the mixin stands in front")

    def on_train_begin(self, args, state, control, **kwargs):
        raise AssertionError("the mixin stands in front")


class Run:
    """Training with two batches per update, and a place to stop at."""

    def __init__(self):
        self.model = seeded(mlp, 0)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.1, momentum=0.9)
        self.batches = 0

    def batch(self):
        """One batch; True where it ends an update."""
        x, y = class_batches(4)[self.batches % 3]
        losses(self.model(x), y).mean().backward()
        self.batches += 1
        if self.batches % 2 == 0:
            self.optimizer.step()
            self.optimizer.zero_grad()
        return self.batches % 2 == 0

    def state(self):
        parts = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        return deepcopy(parts) | {"batches": self.batches}

    def load(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.batches = state["batches"]


@pytest.fixture(scope="module")
def by_hand():
    run = Run()
    recorder = TwoTimeRecorder(run.model, **OPTIONS)
    recorder.record(0)
    for _ in range(40):
        if run.batch():
            recorder.record(run.batches // 2)
    return plain(recorder.result())


def with_lightning(run, callback, last):
    trainer = SimpleNamespace(global_step=run.batches // 2)
    callback.on_train_start(trainer, run.model)
    while run.batches < last:
        run.batch()
        trainer.global_step = run.batches // 2
        callback.on_train_batch_end(trainer, run.model, None, None, 0)


def test_lightning(by_hand, tmp_path):
    watch = type("Watch", (lightning.TwoTimeCallback, Callback), {})
    first, run = watch(**OPTIONS), Run()
    assert first.state_dict() == {}
    with_lightning(run, first, 17)  # in the middle of an update
    torch.save({"callback": first.state_dict()}, tmp_path / "state.ckpt")
    saved = torch.load(tmp_path / "state.ckpt", weights_only=True)
    second = watch(**OPTIONS)
    second.load_state_dict(saved["callback"])
    with_lightning(run, second, 40)
    assert plain(second.recorder.result()) == by_hand
    whole = watch(**OPTIONS)
    with_lightning(Run(), whole, 40)
    assert plain(whole.recorder.result()) == by_hand


def with_hugging_face(run, callback, args, last, save_at=None):
    state = SimpleNamespace(global_step=run.batches // 2)
    callback.on_train_begin(args, state, None, model=run.model)
    while run.batches < last:
        if run.batch():
            state.global_step = run.batches // 2
            callback.on_step_end(args, state, None, model=run.model)
        if run.batches == save_at:
            (args.output_dir / f"checkpoint-{state.global_step}").mkdir()
            callback.on_save(args, state, None)
            saved = run.state()
    return saved if save_at else None


def test_hugging_face(by_hand, tmp_path):
    watch = type("Watch", (hugging_face.TwoTimeCallback, Callback), {})
    args = SimpleNamespace(output_dir=tmp_path, process_index=0)
    first = watch(**OPTIONS)
    saved = with_hugging_face(Run(), first, args, 40, save_at=16)
    assert plain(first.recorder.result()) == by_hand
    assert (tmp_path / "checkpoint-8" / "two_time_0.pt").exists()
    run, second = Run(), watch(**OPTIONS)
    run.load(saved)
    with_hugging_face(run, second, args, 40)
    assert plain(second.recorder.result()) == by_hand


def test_resuming_without_a_state_is_refused(tmp_path):
    """A checkpoint of a run that nobody watched."""
    watch = type("Watch", (hugging_face.TwoTimeCallback, Callback), {})(**OPTIONS)
    args = SimpleNamespace(output_dir=tmp_path, process_index=0)
    state = SimpleNamespace(global_step=8)
    with pytest.raises(FileNotFoundError, match="resume without it"):
        watch.on_train_begin(args, state, None, model=Run().model)


@pytest.mark.parametrize("bases", [(), (Callback,)], ids=["alone", "behind"])
@pytest.mark.parametrize(
    ("mixin", "package"),
    [(lightning.TwoTimeCallback, "lightning"), (hugging_face.TwoTimeCallback, "transformers")],
    ids=["lightning", "transformers"],
)
def test_a_mixin_that_nobody_would_call_is_refused(mixin, package, bases):
    """Alone it lacks the other hooks; behind the callback its own are never reached."""
    watch = type("Watch", (*bases, mixin), {})
    with pytest.raises(TypeError, match=f"must stand in front.*Install {package}, and write"):
        watch(**OPTIONS)


def test_frameworks_are_not_imported():
    code = (
        "import sys, lowland.dynamics.lightning, lowland.dynamics.hugging_face\n"
        "assert not {'lightning', 'pytorch_lightning', 'transformers'} & set(sys.modules)"
    )
    assert forked.run(exec, code) == 0
