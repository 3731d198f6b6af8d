"""The Lightning mixin: a training step on rows chosen from a pool, the same as by hand."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import forked
from lowland.errors import NoEffectWarning
from lowland.importance import ImportanceSampling
from lowland.importance.lightning import ImportanceModule

POOL, STEPS = 24, 12


class StandIn(nn.Module):
    """As much of a LightningModule as the mixin calls."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def on_train_start(self):
        self.calls.append("start")

    def on_train_end(self):
        self.calls.append("end")

    def on_save_checkpoint(self, checkpoint):
        self.calls.append("save")

    def on_load_checkpoint(self, checkpoint):
        self.calls.append("load")


def module_class(base):
    """A user's module: the mixin, the base, and the usual methods."""

    class Net(ImportanceModule, base):
        def __init__(self, threshold=1.0):
            super().__init__()
            self.net = network()
            self.sampling = sampler(self, threshold)

        def forward(self, x):
            return self.net(x)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    return Net


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))


def sampler(model, threshold):
    return ImportanceSampling(
        model,
        nn.CrossEntropyLoss(reduction="none"),
        presample=3,
        tau_threshold=threshold,
        smoothing=0.5,
        seed=1,
    )


@pytest.fixture
def data(rng):
    x = torch.randn(POOL * STEPS, 5, generator=rng)
    return TensorDataset(x, torch.randint(3, (len(x),), generator=rng))


@pytest.fixture(autouse=True)
def _global_generator():
    with torch.random.fork_rng(devices=[]):
        yield


def by_hand(data, threshold):
    """The same with ``select`` in a loop of one's own."""
    model = network()
    sampling = sampler(model, threshold)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sizes = []
    for pool in DataLoader(data, POOL):
        x, y = sampling.select(pool)
        sizes.append(len(y))
        optimizer.zero_grad()
        sampling.loss(model(x), y).backward()
        optimizer.step()
    sampling.close()
    return model, sampling, sizes


def flat(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_steps_are_those_of_a_loop_by_hand(data):
    model = module_class(StandIn)()
    optimizer = model.configure_optimizers()
    model.on_train_start()
    for number, pool in enumerate(DataLoader(data, POOL)):
        optimizer.zero_grad()
        model.training_step(pool, number).backward()
        optimizer.step()
    expected, sampling, sizes = by_hand(data, 1.0)
    assert torch.equal(flat(model.net), flat(expected))
    assert model.sampling.switches == sampling.switches
    assert sizes == [POOL // 3] * STEPS
    assert 0 < sampling.active_steps < STEPS
    model.on_train_end()
    assert model.calls == ["start", "end"]
    with pytest.raises(ValueError, match="just handed out"):
        model.sampling.loss(torch.zeros(8, 3), torch.zeros(8).long())


def test_a_sampling_that_never_switched_on_says_so_at_the_end(data):
    model = module_class(StandIn)(threshold=100.0)
    model.training_step(data[:POOL])
    with pytest.warns(NoEffectWarning, match="never switched on in 1 steps"):
        model.on_train_end()


def test_checkpoints_hold_the_sampling(data):
    model, fresh = module_class(StandIn)(), module_class(StandIn)()
    for pool in DataLoader(data, POOL):
        model.training_step(pool)
    checkpoint = {}
    model.on_save_checkpoint(checkpoint)
    fresh.on_load_checkpoint(checkpoint)
    assert (fresh.sampling.tau, fresh.sampling.steps) == (model.sampling.tau, STEPS)
    assert model.calls + fresh.calls == ["save", "load"]
    pool = next(iter(DataLoader(data, POOL)))
    assert torch.equal(model.sampling.select(pool)[1], fresh.sampling.select(pool)[1])
    module_class(StandIn)().on_load_checkpoint({})  # of a run without the mixin


def test_processes_draw_on_their_own(data, monkeypatch):
    """Made before there were ranks, all have one generator; two starts do not repeat draws."""
    states = []
    for rank, steps in ((0, 0), (1, 0), (2, 0), (1, 5)):
        model = module_class(StandIn)()
        model.sampling.switch.steps = steps
        monkeypatch.setattr("lowland.importance.lightning.rank_and_world", lambda r=rank: (r, 3))
        model.on_train_start()
        states.append(model.sampling.state_dict()["generator"])
    assert len(torch.stack(states).unique(dim=0)) == 4
    assert torch.equal(states[0], module_class(StandIn)().sampling.state_dict()["generator"])


def test_importing_the_adapters_imports_no_trainer():
    code = (
        "import lowland.importance.lightning, lowland.importance.hugging_face, sys\n"
        "assert not {'lightning', 'pytorch_lightning', 'transformers', 'accelerate'} "
        "& set(sys.modules)"
    )
    assert forked.run(exec, code) == 0


# --- with Lightning itself -------------------------------------------------------------------


def trainer(lightning, folder, **settings):
    return lightning.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_lightning_trains_as_a_loop_by_hand(data, tmp_path):
    lightning = pytest.importorskip("lightning")
    model = module_class(lightning.LightningModule)()
    trainer(lightning, tmp_path, max_epochs=1).fit(model, DataLoader(data, POOL))
    expected, sampling, _ = by_hand(data, 1.0)
    assert torch.equal(flat(model.net), flat(expected))
    assert model.sampling.active_steps == sampling.active_steps > 0


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_lightning_resumes_from_a_checkpoint(data, tmp_path):
    """Weights after two epochs are those of one, a file, and the other."""
    lightning = pytest.importorskip("lightning")
    first, second, whole = (module_class(lightning.LightningModule)() for _ in range(3))
    begun = trainer(lightning, tmp_path, max_epochs=1, enable_checkpointing=False)
    begun.fit(first, DataLoader(data, POOL))
    begun.save_checkpoint(tmp_path / "middle.ckpt")
    loader, file = DataLoader(data, POOL), tmp_path / "middle.ckpt"
    settings = {"max_epochs": 2, "enable_checkpointing": False}
    trainer(lightning, tmp_path, **settings).fit(second, loader, ckpt_path=file, weights_only=True)
    trainer(lightning, tmp_path, **settings).fit(whole, loader)
    assert second.sampling.steps == whole.sampling.steps == 2 * STEPS
    assert second.sampling.switches == whole.sampling.switches
    assert torch.equal(flat(second.net), flat(whole.net))


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_lightning_hands_out_pools_to_two_processes(data, tmp_path):
    """Its own sampler shares the loader; weights agree, chosen rows do not."""
    pytest.importorskip("lightning")
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES.format(here=str(Path(__file__).parent), folder=str(tmp_path)))
    done = subprocess.run([sys.executable, script], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert torch.equal(first["weights"], second["weights"])
    assert first["switches"] == second["switches"]
    assert first["rows"] == second["rows"] == [POOL // 3] * (STEPS // 2)
    assert not torch.equal(first["generator"], second["generator"])


TWO_PROCESSES = """
import sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, {here!r})
import lightning, torch
from torch.utils.data import DataLoader, TensorDataset
import test_importance_lightning as test

if __name__ == "__main__":
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(test.POOL * test.STEPS, 5, generator=draws)
    data = TensorDataset(x, torch.randint(3, (len(x),), generator=draws))
    base = test.module_class(lightning.LightningModule)

    class Net(base):
        rows = []

        def training_step(self, batch, number):
            loss = super().training_step(batch, number)
            self.rows.append(len(self.sampling.weight))
            return loss

    model = Net()
    run = test.trainer(
        lightning, {folder!r}, max_epochs=1, strategy="ddp", devices=2, enable_checkpointing=False
    )
    run.fit(model, DataLoader(data, test.POOL, shuffle=True))
    sampling = model.sampling
    found = dict(
        weights=test.flat(model.net), switches=sampling.switches, rows=model.rows,
        generator=sampling.state_dict()["generator"],
    )
    torch.save(found, f"{folder}/{{run.global_rank}}.pt")
"""


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_lightning_accumulates_micro_batches(data, tmp_path):
    lightning = pytest.importorskip("lightning")
    model = module_class(lightning.LightningModule)()
    model.sampling = ImportanceSampling(
        model, nn.CrossEntropyLoss(reduction="none"), tau_threshold=1, accumulate=2, smoothing=0
    )
    run = trainer(lightning, tmp_path, max_epochs=2, accumulate_grad_batches=2)
    run.fit(model, DataLoader(data, POOL))
    assert run.global_step == STEPS
    assert model.sampling.steps == 2 * STEPS
    assert model.sampling.active_steps > 0
