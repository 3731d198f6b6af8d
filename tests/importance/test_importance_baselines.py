"""What all methods to beat promise: seeds, saved states, losses and bad input."""

import io
import json
import math
from itertools import islice

import pytest
import torch
from rows_as_losses import ALL, POOL, Identity, given_loss, images, rows, step

from lowland.importance.baselines import RandomSubset, UniformSampling
from lowland.importance.history import HistorySampling, RankSampling
from lowland.importance.pruning import InfoBatchPruning
from lowland.importance.selective import SelectiveBackprop
from lowland.results import Status
from lowland.training import train


@pytest.mark.parametrize("name", ALL)
def test_the_seed_decides_and_nothing_else_is_touched(name):
    data = rows() if name in POOL else images()
    before = torch.get_rng_state()
    runs = []
    for _ in range(2):
        sampling = ALL[name]()
        runs.append([step(sampling, batch) for _ in range(3) for batch in sampling(data)])
        torch.rand(3)
    assert runs[0] == runs[1]
    assert sampling.steps == len(runs[0])
    torch.set_rng_state(before)
    sampling = ALL[name]()
    for batch in sampling(data):
        step(sampling, batch)
    assert torch.equal(before, torch.get_rng_state())
    assert sampling.summary().startswith(f"{sampling.steps} ")


@pytest.mark.parametrize("done", [1, 2, 5, 7])
@pytest.mark.parametrize("name", ALL)
def test_a_saved_state_goes_on_in_mid_run(name, done):
    """Through a file without pickled objects; the loader's place is the caller's business."""
    passes = 4
    whole, again = ALL[name](), ALL[name]()
    pool = [batch for _ in range(passes) for batch in rows()]

    def stream(sampling, data):
        if name in POOL:
            yield from sampling(data)
        else:
            for _ in range(passes):
                yield from sampling(data)

    data = iter(pool) if name in POOL else images()
    expected = [step(whole, batch) for batch in stream(whole, iter(pool) if name in POOL else data)]
    assert len(expected) > done
    found = []
    for batch in stream(again, data):
        found.append(step(again, batch))
        if len(found) == done:
            break
    file = io.BytesIO()
    torch.save(again.state_dict(), file)
    file.seek(0)
    fresh = ALL[name]()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    found += [step(fresh, batch) for batch in islice(stream(fresh, data), len(expected) - done)]
    assert found == expected


@pytest.mark.parametrize("name", ALL)
def test_settings_tell_runs_apart(name):
    """Plain values, the method and the seed among them."""
    found = ALL[name]().settings()
    assert json.loads(json.dumps(found)) == found
    assert found.pop("method") == type(ALL[name]()).__name__
    assert name == "uniform" or found["seed"] == 1
    assert len(found) >= 1 + (name != "uniform")
    if name != "uniform":
        changed = ALL[name]()
        changed.seed = 2
        assert changed.settings() != ALL[name]().settings()


@pytest.mark.parametrize("name", POOL)
def test_a_run_with_a_folder_goes_on_with_the_same_bits(name, tmp_path):
    """In the foundation's ``train``, stopped in the middle of a pool; not with other settings."""

    def run(out=None, **options):
        model = Identity()
        sampling = ALL[name]()
        if name == "selective":
            sampling.model = model
        for option, value in options.pop("changed", {}).items():
            setattr(sampling, option, value)
        settings = {"steps": 6, "optimizer": lambda params: torch.optim.SGD(params, 1e-3)}
        return train(model, given_loss, rows(), sampling=sampling, out=out, **settings, **options)

    whole = run()
    assert run(tmp_path, max_steps_now=2).status is Status.INTERRUPTED
    option = "multiple" if name == "uniform" else "presample"
    with pytest.raises(ValueError, match="sampling"):
        run(tmp_path, changed={option: 4})
    again = run(tmp_path)
    assert again.status is Status.FINISHED
    assert torch.equal(again.state["one"], whole.state["one"])


@pytest.mark.parametrize("name", ALL)
def test_states_of_something_else(name):
    with pytest.raises(ValueError, match="state must be what state_dict.*lacks.*'steps'"):
        ALL[name]().load_state_dict({})


@pytest.mark.parametrize("name", ALL)
def test_a_loss_that_does_not_belong_to_the_batch_is_refused(name):
    sampling = ALL[name]()
    with pytest.raises(ValueError, match="it gave none, got 3 losses"):
        sampling.loss(torch.ones(3), torch.ones(3))
    inputs, target = next(iter(sampling(rows() if name in POOL else images())))
    with pytest.raises(ValueError, match=r"it gave \d+ rows, got 3 losses"):
        sampling.loss(inputs[:3], target[:3])
    sampling.loss_fn = lambda output, target: output.mean()
    with pytest.raises(ValueError, match=r'got a scalar. Pass reduction="none"'):
        sampling.loss(inputs, target)


@pytest.mark.parametrize("name", ALL)
def test_a_loss_that_is_not_finite_reaches_the_user(name):
    """It is neither hidden nor the end of later draws."""
    sampling = ALL[name]()
    data = rows() if name in POOL else images()
    for number, (inputs, target) in enumerate(sampling(data)):
        spoiled = inputs.clone()
        spoiled[0] = float("nan") if number == 0 else inputs[0]
        assert sampling.loss(spoiled, target).isnan() == (number == 0)
    for inputs, target in sampling(data):
        assert sampling.loss(inputs, target).isfinite()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_loss_is_in_float32_or_wider(dtype):
    sampling = HistorySampling(given_loss)
    inputs, target = next(sampling(images()))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert sampling.loss(inputs.to(dtype), target).dtype == wide


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UniformSampling(given_loss, 0), "multiple must be at least 1 batch; got 0"),
        (lambda: RandomSubset(given_loss, 1.0), "presample must be above 1.*got 1.0"),
        (lambda: RandomSubset(given_loss, math.nan), "presample must be above 1"),
        (lambda: SelectiveBackprop(Identity(), given_loss, 1.0), "presample must be above 1"),
        (lambda: SelectiveBackprop(Identity(), given_loss, history=0), "at least 1 loss; got 0"),
        (lambda: HistorySampling(given_loss, -1.0), "must not be negative and offset be positive"),
        (lambda: HistorySampling(given_loss, offset=0.0), "must not be negative and offset be"),
        (lambda: RankSampling(given_loss, 0), "steps and pressure must be at least 1; got steps 0"),
        (lambda: RankSampling(given_loss, 5, (0.5, 1.0)), "pressure must be at least 1"),
        (lambda: RankSampling(given_loss, 5, recompute_every=3), "got 3 and no model"),
        (lambda: InfoBatchPruning(given_loss, 0), "epochs must be at least 1"),
        (lambda: InfoBatchPruning(given_loss, 5, 1.0), r"prune lie in \[0, 1\)"),
        (lambda: InfoBatchPruning(given_loss, 5, 0.5, 1.5), r"anneal in \[0, 1\]"),
    ],
)
def test_bad_settings_meet_a_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()
