"""The methods to beat: each does what its formula says, and goes on where it was saved."""

import io
import math
from itertools import islice

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lowland.data import Batches
from lowland.importance.baselines import RandomSubset, UniformSampling
from lowland.importance.history import HistorySampling, RankSampling, rank_probabilities
from lowland.importance.pruning import InfoBatchPruning
from lowland.importance.selective import SelectiveBackprop
from lowland.importance.whole_set import whole_set

N = 40


def given_loss(output, target):
    """The output is the loss, whatever its shape; the target says which row it was."""
    return output.flatten(1).mean(1) if output.ndim > 1 else output


def rows(count=N, size=8):
    """Batches whose input and target are the number of the row."""
    numbers = torch.arange(count)
    return [(part.double(), part) for part in numbers.split(size)]


def images(count=N, size=8, **settings):
    """The same as a data set whose rows can be asked for."""
    pixels = torch.arange(count).to(torch.uint8).reshape(count, 1, 1, 1)
    return Batches(pixels, torch.arange(count), size, dtype=torch.float64, **settings)


def loader(count=N, size=8, **settings):
    numbers = torch.arange(count)
    return DataLoader(TensorDataset(numbers.double(), numbers), size, **settings)


class Identity(nn.Module):
    """Gives its inputs, from which losses are made; has a device and a mode."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.modes = []

    def forward(self, inputs):
        self.modes.append((self.training, torch.is_grad_enabled()))
        return inputs * self.one


ALL = {
    "uniform": lambda: UniformSampling(given_loss, 2),
    "subset": lambda: RandomSubset(given_loss, 2.3, seed=1),
    "selective": lambda: SelectiveBackprop(Identity(), given_loss, 2.0, seed=1),
    "history": lambda: HistorySampling(given_loss, seed=1),
    "rank": lambda: RankSampling(given_loss, 12, seed=1),
    "pruning": lambda: InfoBatchPruning(given_loss, 5, seed=1),
}
POOL = ("uniform", "subset", "selective")


def step(sampling, batch):
    """One step of a loop; the loss of a row is its number, plus a bit for each step done."""
    inputs, target = batch
    loss = sampling.loss(inputs + 0.1 * sampling.steps, target)
    return target.tolist(), sampling.weight.tolist(), float(loss)


# --- all of them -----------------------------------------------------------------------------


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


# --- uniform and random subset ---------------------------------------------------------------


@pytest.mark.parametrize("multiple", [1, 2, 3])
def test_a_larger_batch_is_its_parts_joined(multiple):
    """Also in mappings, and the loss of one is bit by bit the plain mean."""
    parts = [({"a": x, "b": y[:, None]}, y) for x, y in rows()]
    sampling = UniformSampling(given_loss, multiple)
    found = list(sampling(parts))
    assert [len(y) for _, y in found] == [
        sum(len(y) for _, y in parts[i : i + multiple]) for i in range(0, len(parts), multiple)
    ]
    for number, (inputs, target) in enumerate(found):
        own = parts[number * multiple : (number + 1) * multiple]
        assert torch.equal(target, torch.cat([y for _, y in own]))
        assert torch.equal(inputs["a"], torch.cat([x["a"] for x, _ in own]))
        assert torch.equal(inputs["b"][:, 0], target)
    losses = torch.randn(len(target), generator=torch.Generator().manual_seed(0))
    assert torch.equal(sampling.loss(losses, target), losses.mean())
    assert sampling.summary() == f"{len(found)} uniform steps; {N} rows read"


def test_a_random_subset_is_uniform():
    """Every row of a pool is drawn in b / B of the runs, without repetition; 5 standard errors."""
    counts, runs = torch.zeros(12), 2000
    sampling = RandomSubset(given_loss, 3.0, seed=0)
    for _ in range(runs):
        (_, target), *rest = sampling(rows(12, 4))
        assert not rest
        assert len(target.unique()) == 4
        counts[target] += 1
    share = 1 / 3
    assert ((counts / runs - share).abs() < 5 * (share * (1 - share) / runs) ** 0.5).all()


@pytest.mark.parametrize(
    ("presample", "sizes", "pools"),
    [(2.0, [8, 8, 8], [16, 16, 8]), (3.0, [8, 8], [24, 16]), (2.3, [8, 8, 4], [18, 18, 4])],
)
def test_pools_of_a_subset_go_through_the_data_once(presample, sizes, pools):
    """Consecutive rows, B = r b rounded; a last pool that is not larger is used whole."""
    sampling, start = RandomSubset(given_loss, presample), 0
    for (_, target), size, pool in zip(sampling(rows()), sizes, pools, strict=True):
        assert len(target) == size
        assert target.min() >= start
        assert target.max() < start + pool
        start += pool
    assert sampling.rows_read == start == N
    assert sampling.held is None


def test_nothing_comes_from_nothing():
    for sampling in (RandomSubset(given_loss), SelectiveBackprop(Identity(), given_loss)):
        assert list(sampling([])) == []


# --- selective backpropagation ---------------------------------------------------------------


def test_chances_are_the_distribution_function_to_a_power():
    """With 10 known losses and these 5, ranks by hand: k / n, ties in the middle."""
    sampling = SelectiveBackprop(Identity(), given_loss, 3.0, history=15, seed=0)
    sampling.losses = torch.arange(10, dtype=torch.float64)  # 0..9
    losses = torch.tensor([-1.0, 4.0, 4.5, 9.0, 20.0], dtype=torch.float64)
    # among -1 0 1 2 3 4 4 4.5 5 6 7 8 9 9 20: places 1, 6-7, 8, 13-14, 15 of 15
    expected = (torch.tensor([1, 6.5, 8, 13.5, 15]) / 15) ** 2
    state, runs = sampling.losses.clone(), 4000
    counts = torch.zeros(5)
    for _ in range(runs):
        sampling.losses = state.clone()
        counts[sampling.keep(losses)] += 1
    error = 5 * (expected * (1 - expected) / runs) ** 0.5
    assert ((counts / runs - expected).abs() <= error).all()
    assert torch.equal(sampling.losses, torch.cat([state, losses]))
    sampling.keep(losses[:3])
    assert torch.equal(sampling.losses, torch.cat([state, losses, losses[:3]])[-15:])


def test_selective_keeps_one_in_presample_and_all_batches_are_full():
    """E[F^beta] = 1 / (1 + beta); 300 draws of a row with chance near 1 / 3, five errors."""
    model = Identity().train()
    sampling = SelectiveBackprop(model, given_loss, 3.0, seed=0)
    data = [(x.flip(0) + 0.01, y) for x, y in rows(3000, 20)]
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    batches = list(sampling([data[i] for i in order.tolist()]))
    assert all(len(target) == 20 for _, target in batches[:-1])
    total = sum(len(target) for _, target in batches)
    assert sampling.rows_read == 3000
    assert total / 3000 == pytest.approx(1 / 3, abs=5 * (2 / 9 / 3000) ** 0.5)
    targets = torch.cat([target for _, target in batches])
    assert len(targets.unique()) == len(targets)
    assert targets.double().mean() > 1600  # large losses are preferred
    assert set(model.modes) == {(False, False)}  # scored in evaluation mode, without gradient
    assert model.training


def test_selective_gives_at_least_one_batch():
    """Here nothing is kept, as all losses are below those of the history."""
    sampling = SelectiveBackprop(Identity(), given_loss, 60.0, history=10_000)
    sampling.losses = torch.full((10_000,), 1e6, dtype=torch.float64)
    ((_, target),) = sampling(rows(10, 5))
    assert target.tolist() == [5, 6, 7, 8, 9]


def test_mappings_with_labels_are_batches_too():
    """By keyword to the model, rows chosen in every entry; the same rows as of pairs."""

    class Named(Identity):
        def forward(self, x):
            return super().forward(x)

    data = rows(400, 20)
    plain = SelectiveBackprop(Identity(), given_loss, seed=1)
    named = SelectiveBackprop(Named(), given_loss, seed=1)
    mappings = [{"x": x, "labels": y} for x, y in data]
    for (x, y), batch in zip(plain(data), named(mappings), strict=True):
        assert torch.equal(batch["x"], x)
        assert torch.equal(batch["labels"], y)


# --- methods over the whole data set ---------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_history_draws_by_the_last_loss_and_undoes_it(alpha):
    """Chance times weight is 1/N draw by draw: no bias. Frequencies within 5 errors of p."""
    sampling = HistorySampling(given_loss, alpha, 1.0, 0.3, seed=0)
    losses = torch.rand(N, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 4
    counts, total, runs = torch.zeros(N, dtype=torch.float64), 0.0, 400
    data = images(N, 50)
    next(sampling(data))
    sampling.losses = losses.clone()
    p = (losses + 0.3) ** alpha / ((losses + 0.3) ** alpha).sum()
    for _ in range(runs):
        sampling.left = 0
        _, target = next(sampling(data))
        torch.testing.assert_close(sampling.weight * p[target] * N, torch.ones(50).double())
        counts += torch.bincount(target, minlength=N)
        total += float(sampling.loss(losses[target], target))
    draws = 50 * runs
    assert ((counts / draws - p).abs() < 5 * (p * (1 - p) / draws) ** 0.5).all()
    spread = (((losses / (N * p)) ** 2 * p).sum() - losses.mean() ** 2).clamp(min=0) ** 0.5
    assert total / runs == pytest.approx(float(losses.mean()), abs=float(5 * spread / draws**0.5))


def test_history_weights_to_a_power():
    first, second = (HistorySampling(given_loss, beta=beta, seed=3) for beta in (1.0, 0.5))
    for sampling in (first, second):
        for inputs, target in sampling(images()):
            sampling.loss(inputs, target)
        next(sampling(images()))
    torch.testing.assert_close(first.weight**0.5, second.weight)
    assert first.weight.unique().numel() > 3


def test_history_counts_the_unknown_with_the_largest_loss():
    sampling = HistorySampling(given_loss, 1.0, offset=0.5)
    inputs, target = next(sampling(images()))
    assert torch.equal(sampling.weight, torch.ones(8).double())  # nothing known: uniform
    sampling.loss(torch.arange(8).double(), target)
    last = dict(zip(target.tolist(), range(8), strict=True))
    largest = max(last.values())
    expected = [last.get(row, largest) + 0.5 for row in range(N)]
    assert sampling.priorities().tolist() == expected


@pytest.mark.parametrize(("count", "pressure"), [(7, 100.0), (40, 10.0), (5, 1.0)])
def test_rank_probabilities_are_the_closed_form(count, pressure):
    """A geometric series: p_k = q^k (1 - q) / (1 - q^N) with q = s_e^(-1/N)."""
    q = pressure ** (-1 / count)
    total = count if q == 1 else (1 - q**count) / (1 - q)
    expected = torch.tensor([q**k / total for k in range(count)], dtype=torch.float64)
    torch.testing.assert_close(rank_probabilities(count, pressure), expected)


def test_rank_draws_follow_the_ranks():
    """Rank 0 is the largest last loss; frequencies within 5 standard errors."""
    sampling = RankSampling(given_loss, 10**9, (50.0, 50.0), seed=0)
    losses = torch.rand(N, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    counts, runs, data = torch.zeros(N, dtype=torch.float64), 400, images(N, 50)
    for _ in range(runs):
        _, target = next(sampling(data))
        if sampling.steps > 1:
            counts += torch.bincount(target, minlength=N)
        sampling.losses = losses.clone()
        sampling.left = 0
    draws = 50 * (runs - 1)
    p = torch.empty(N, dtype=torch.float64)
    p[losses.argsort(descending=True)] = rank_probabilities(N, 50.0)
    assert ((counts / draws - p).abs() < 5 * (p * (1 - p) / draws) ** 0.5).all()


def test_pressure_moves_geometrically():
    sampling = RankSampling(given_loss, 4, (100.0, 1.0))
    seen = []
    for _ in range(6):
        seen.append(sampling.pressure_now())
        next(sampling(images(N, 40)))
    assert seen == pytest.approx([100, 100**0.75, 10, 100**0.25, 1, 1])


def test_rank_puts_rows_without_a_loss_first_in_a_random_order():
    sampling = RankSampling(given_loss, 10, seed=0)
    inputs, target = next(sampling(images()))
    order = sampling.order()
    assert torch.equal(order.sort().values, torch.arange(N))
    assert not torch.equal(order, torch.arange(N))
    sampling.loss(inputs, target)
    known = target.unique()
    assert torch.equal(sampling.order()[-len(known) :], known.flip(0))


def test_rank_computes_all_losses_now_and_then():
    """In evaluation mode and without gradient; the first time after ``recompute_every`` steps."""
    model = Identity()
    sampling = RankSampling(given_loss, 100, recompute_every=3, model=model)
    stream = (batch for _ in range(2) for batch in sampling(images(10, 4)))
    for number, _ in zip(range(1, 6), stream, strict=False):
        assert len(model.modes) == (0 if number < 4 else 3)  # 3 batches of 4, 4 and 2 rows
    assert torch.equal(sampling.losses, torch.arange(10).double() / 255)
    assert set(model.modes) == {(False, False)}
    assert model.training


def test_pruning_keeps_the_sum_in_expectation():
    """Rows at or above the mean are always there; of m below it, k with weight m / k."""
    sampling = InfoBatchPruning(given_loss, 10**6, 0.7, seed=0)
    losses = torch.rand(N, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    easy = losses < losses.mean()
    m = int(easy.sum())
    k = round(0.3 * m)
    counts, runs, sums = torch.zeros(N), 1000, []
    for number in range(runs):
        seen, total = [], 0.0
        for _, target in sampling(images(N, 7)):
            total += float(sampling.loss(losses[target], target)) * len(target)
            seen.append(target)
        seen = torch.cat(seen)
        assert len(seen.unique()) == len(seen)
        if number == 0:  # nothing is known yet
            assert len(seen) == N
            continue
        assert len(seen) == N - m + k
        counts[seen] += 1
        sums.append(total)
        assert total == pytest.approx(
            float(losses[~easy].sum() + losses[seen[easy[seen]]].sum() * m / k)
        )
    assert (counts[~easy] == runs - 1).all()
    share = k / m
    error = 5 * (share * (1 - share) / runs) ** 0.5
    assert ((counts[easy] / (runs - 1) - share).abs() < error).all()
    mean, spread = sum(sums) / len(sums), torch.tensor(sums).std() / len(sums) ** 0.5
    assert mean == pytest.approx(float(losses.sum()), abs=5 * float(spread))


def test_the_last_epochs_are_full():
    sampling = InfoBatchPruning(given_loss, 8, 0.5, anneal=0.5)
    kept = []
    for _ in range(8):
        for inputs, target in sampling(images()):
            sampling.loss(inputs, target)
        kept.append(sampling.kept)
        full = sampling.weights.unique().tolist() == [1.0]
        assert full == (sampling.kept == N)
    assert kept == [N] + [30] * 3 + [N] * 4


@pytest.mark.parametrize("name", ["history", "rank", "pruning"])
def test_a_loader_and_batches_give_the_same_rows(name):
    """And the loader's own sampler plays no part."""
    found = []
    for data in (images(), loader(), loader(shuffle=True)):
        sampling = ALL[name]()
        found.append([step(sampling, (y.double(), y)) for _ in range(3) for _, y in sampling(data)])
    assert found[0] == found[1] == found[2]


def test_a_loader_collates_as_it_was_told():
    data = loader(10, 4, drop_last=True, collate_fn=lambda parts: ("mine", len(parts)))
    whole = whole_set(data)
    assert (whole.count, whole.batch_size, whole.steps) == (10, 4, 2)
    assert whole.rows(torch.tensor([3, 3, 1]), None) == ("mine", 3)


def test_rows_are_augmented_where_batches_are():
    """By the sampling's own draws: two batches of the same row differ, two runs do not."""
    pixels = torch.randint(256, (4, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    data = Batches(pixels.to(torch.uint8), torch.arange(4), 16, augment="crop-flip")
    first, second = (next(HistorySampling(given_loss, seed=seed)(data)) for seed in (5, 5))
    assert torch.equal(first[0], second[0])
    assert len(first[0].unique(dim=0)) > 8


# --- bad input -------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", ["history", "rank", "pruning"])
def test_data_whose_rows_cannot_be_asked_for_is_refused(name):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(())

    for data in (rows(), DataLoader(Stream(), 4), DataLoader(TensorDataset(torch.ones(3)), None)):
        with pytest.raises(ValueError, match="chooses among all rows needs a DataLoader"):
            next(ALL[name]()(data))
    sampling = ALL[name]()
    next(sampling(images()))
    with pytest.raises(ValueError, match="losses are known of, 40 rows; got 30"):
        next(sampling(images(30)))
    with pytest.raises(ValueError, match="losses must not be negative.*got -1"):
        sampling.loss(-torch.ones(8), torch.ones(8))
