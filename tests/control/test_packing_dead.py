"""Dead weights: those whose every product of costate and input is zero, and no others."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from lowland.control import discretize, pack, sweep_dead_weights
from lowland.errors import UnsupportedModelError
from small_networks import same, snapshot

pytestmark = pytest.mark.filterwarnings("ignore:no normalization follows")


def batches(*shape, rng, black=()):
    """Two batches of inputs, black where told."""
    x = torch.rand(2, *shape, generator=rng) + 0.1
    x[..., list(black)] = 0
    return [(part, torch.zeros(len(part), dtype=torch.long)) for part in x]


def test_columns_of_black_pixels_and_rows_of_silent_units_die(rng):
    """By hand: pixels 0 and 3 are black, unit 1 is off for every example, unit 2 is on."""
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    discretize(model, (-1, 0, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1, 1, -1, 1], [-1, -1, -1, 1], [1, 0, 1, 1]]))
        model[0].bias.copy_(torch.tensor([5.0, -1.0, 0.0]))
        model[2].weight.copy_(torch.tensor([[1, 1, 1], [-1, 1, 0]]))
    data = batches(6, 4, rng=rng, black=(0, 3))
    before = [model(x).detach() for x, _ in data]
    swept = sweep_dead_weights(model, data)
    # unit 1: its whole row, and what reads it; the black pixels: two columns
    assert model[0].weight.tolist() == [[0, 1, -1, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    assert model[2].weight.tolist() == [[1, 0, 1], [-1, 0, 0]]
    assert swept.dead == {"0": 8, "2": 2}
    assert swept.nonzero == {"0": 3, "2": 3}
    assert swept.examples == 12
    assert all(torch.equal(model(x), out) for (x, _), out in zip(data, before, strict=True))


def test_a_unit_that_would_wake_up_keeps_its_weights(rng):
    """A silent unit whose offset is positive is held down by its weights: they are not dead."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    discretize(model, (-1, 0, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[-1, -1], [1, 1]]))
        model[0].bias.copy_(torch.tensor([0.05, 0.0]))  # inputs are above 0.1
        model[2].weight.copy_(torch.tensor([[1, 0]]))  # nobody reads unit 1
    swept = sweep_dead_weights(model, batches(6, 2, rng=rng))
    assert model[2].weight.tolist() == [[0, 0]]  # unit 0 is never on
    assert swept.dead["0"] == 4  # and then nobody reads either unit
    assert not pack(model).network[0].packed.decode().any()


def test_a_unit_that_is_read_and_held_down(rng):
    """The outputs change if the row goes, so it stays."""

    class Held(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(2, 1), nn.Linear(1, 1, bias=False)

        def forward(self, x):
            return self.last(torch.relu(self.first(x)))

    model = discretize(Held(), (-1, 0, 1), skip="last")
    with torch.no_grad():
        model.first.weight.copy_(torch.tensor([[-1, -1]]))
        model.first.bias.fill_(0.05)
        model.last.weight.fill_(1.0)
    swept = sweep_dead_weights(model, batches(6, 2, rng=rng))
    assert model.first.weight.tolist() in ([[-1, 0]], [[0, -1]], [[-1, -1]])
    assert swept.nonzero["first"] >= 1


def test_rows_of_a_table_that_nobody_looks_up(rng):
    """Only the rows of the embedding that the batches name are kept."""
    model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(8, 3))
    discretize(model, (-1, 0, 1))
    with torch.no_grad():
        model[0].weight.fill_(1)
    data = [(torch.tensor([[1, 2], [2, 5]]), torch.zeros(2))]
    sweep_dead_weights(model, data)
    assert (model[0].weight != 0).any(1).nonzero().flatten().tolist() == [1, 2, 5]


def test_convolutions_with_a_black_channel(rng):
    """Every filter loses the weights of the channel that is black in all images."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 16, 2))
    discretize(model, (-1, 0, 1))
    x = torch.rand(5, 3, 4, 4, generator=rng)
    x[:, 1] = 0
    before = snapshot(model)
    swept = sweep_dead_weights(model, [(x, torch.zeros(5))])
    assert not model[0].weight[:, 1].any()
    bits, after = before.pop("bits"), snapshot(model)
    assert swept.dead["0"] >= int(bits["0.weight"][:, 1].count_nonzero())
    now = after.pop("bits")
    assert torch.equal(now["0.weight"][:, 0], bits["0.weight"][:, 0])
    assert same(after, before)


def test_nothing_ternary_is_refused():
    """Binary weights cannot be zero."""
    model = discretize(nn.Sequential(nn.Linear(4, 4)), (-1, 1))
    with pytest.raises(UnsupportedModelError, match="must have a layer with weights -1, 0 and 1"):
        sweep_dead_weights(model, [])


def test_batches_must_come_again_as_they_were(rng):
    """A shuffling loader compares rows with others; tensors instead of pairs lose all but one."""
    model = discretize(nn.Sequential(nn.Linear(4, 4)), (-1, 0, 1))
    data = torch.rand(12, 4, generator=rng)
    pairs = torch.utils.data.TensorDataset(data, torch.zeros(12))
    loader = torch.utils.data.DataLoader(pairs, 6, shuffle=True, generator=rng)
    with pytest.raises(ValueError, match="must be the same at every pass"):
        sweep_dead_weights(model, loader)
    with pytest.raises(ValueError, match=r"pairs \(inputs, target\); got a Tensor"):
        sweep_dead_weights(model, list(data.split(6)))


def test_batches_that_come_once_only(rng):
    """After a generator has run out, no output could tell whether a weight is dead."""
    model = discretize(nn.Sequential(nn.Linear(4, 4)), (-1, 0, 1))
    before = model[0].weight.clone()
    with pytest.raises(ValueError, match="Pass a list or a DataLoader"):
        sweep_dead_weights(model, (batch for batch in batches(6, 4, rng=rng)))
    with pytest.raises(ValueError, match="at least one batch; got none"):
        sweep_dead_weights(model, [])
    assert torch.equal(model[0].weight, before)


def test_frozen_models_and_changes_in_place(rng):
    """A relu that writes over a frozen layer's output leaves unit 0 silent all the same."""
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(inplace=True), nn.Linear(2, 1))
    discretize(model, (-1, 0, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[-1, -1, -1], [1, 1, 1]]))
        model[0].bias.copy_(torch.tensor([-1.0, 0.0]))
        model[2].weight.fill_(1)
    model.requires_grad_(False)
    sweep_dead_weights(model, batches(6, 3, rng=rng))
    assert model[0].weight.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert model[2].weight.tolist() == [[0, 1]]


def test_a_table_that_is_also_the_head(rng):
    """What the head reads is not dead because nobody looks it up; one number for both places."""

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
            self.head.weight = self.table.weight

        def forward(self, index):
            return self.head(self.table(index))

    model = discretize(Tied(), (-1, 0, 1))
    with torch.no_grad():
        model.table.weight.fill_(1)
        model.table.weight[0, 3] = 0
    swept = sweep_dead_weights(model, [(torch.tensor([0]), torch.zeros(1))])
    # only row 0 is looked up, so that the head's last column meets a zero; row 0 stays
    assert model.head.weight[:, :3].all()
    assert not model.head.weight[:, 3].any()
    assert swept.dead == {"table": 5, "head": 5}


def test_pairs_of_inputs_and_tables_with_a_limit(rng):
    """A bilinear layer meets products; an embedding that renorms its rows can be swept."""

    class Pairs(nn.Module):
        def __init__(self):
            super().__init__()
            self.both, self.table = nn.Bilinear(3, 2, 4), nn.Embedding(5, 2, max_norm=1e9)

        def forward(self, x, index):
            return self.both(x, self.table(index))

    model = discretize(Pairs(), (-1, 0, 1))
    with torch.no_grad():
        model.both.weight.fill_(1)
        model.table.weight.fill_(1)
    x = torch.rand(6, 3, generator=rng) + 0.1
    x[:, 1] = 0
    sweep_dead_weights(model, [((x, torch.tensor([0, 0, 2, 2, 0, 2])), torch.zeros(6))])
    assert not model.both.weight[:, 1].any()
    assert model.both.weight[:, [0, 2]].all()
    assert model.table.weight.any(1).tolist() == [True, False, True, False, False]


def test_a_model_inside_a_wrapper(rng):
    """DataParallel computes what its module does, so that one is swept."""
    model = discretize(nn.Sequential(nn.Linear(4, 3)), (-1, 0, 1))
    swept = sweep_dead_weights(nn.DataParallel(model), batches(6, 4, rng=rng, black=(1,)))
    assert list(swept.dead) == ["0"]
    assert not model[0].weight[:, 1].any()


def test_a_model_without_float_outputs():
    """Labels alone do not tell whether a weight counts."""

    class Labels(nn.Sequential):
        def forward(self, x):
            return super().forward(x).argmax(1)

    model = discretize(Labels(nn.Linear(4, 3)), (-1, 0, 1))
    with pytest.raises(UnsupportedModelError, match="must return a tensor of floats"):
        sweep_dead_weights(model, [(torch.ones(2, 4), torch.zeros(2))])


class Buffered(nn.Module):
    """Writes all outputs into one tensor, and counts its calls; its unit is held down at zero."""

    def __init__(self):
        super().__init__()
        self.layer = discretize(nn.Linear(2, 1), (-1, 0, 1))
        with torch.no_grad():
            self.layer.weight.fill_(-1)
            self.layer.bias.fill_(0.05)
        self.register_buffer("out", torch.zeros(6, 1))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x):
        self.calls += 1
        return self.out.copy_(torch.relu(self.layer(x)))


def test_a_model_that_writes_over_its_own_output(rng):
    """By hand: relu(0.05 - x) = 0 where a weight is left and x > 0.1; relu(0.05) > 0 without."""
    model, data = Buffered(), batches(6, 2, rng=rng)
    assert sweep_dead_weights(model, data).nonzero == {"layer": 1}  # one of both is enough
    assert not any(model(x).any() for x, _ in data)


def test_buffers_stay_as_they_were(rng):
    """A counter of calls and a place for outputs hold what they held."""
    model = Buffered()
    sweep_dead_weights(model, batches(6, 2, rng=rng))
    deepcopy(model)  # which torch refuses where a tensor hangs on a graph
    assert int(model.calls) == 0
    assert not model.out.any()


def test_a_weight_that_is_a_buffer_is_swept(rng):
    """What is put back is what the sweep did not set to zero."""
    model = nn.Sequential(nn.Linear(4, 3))
    del model[0].weight
    model[0].register_buffer("weight", torch.tensor([[1.0, 1, 0, -1]] * 3))
    swept = sweep_dead_weights(model, batches(6, 4, rng=rng, black=(1,)))
    assert swept.dead == {"0": 3}
    assert model[0].weight.tolist() == [[1, 0, 0, -1]] * 3


def test_under_inference_mode(rng):
    """The same as outside, also with batches made there; a model made there cannot change."""
    model = discretize(nn.Sequential(nn.Linear(4, 3)), (-1, 0, 1))
    with torch.no_grad():
        model[0].weight.fill_(1)
    with torch.inference_mode():
        swept = sweep_dead_weights(model, batches(6, 4, rng=rng, black=(1,)))
        made = discretize(nn.Sequential(nn.Linear(4, 3)), (-1, 0, 1))
        with pytest.raises(UnsupportedModelError, match="made outside torch.inference_mode.* 0.w"):
            sweep_dead_weights(made, batches(6, 4, rng=rng))
    assert swept.dead == {"0": 3}
    assert model[0].weight.tolist() == [[1, 0, 1, 1]] * 3


def test_outputs_that_are_not_finite(rng):
    """NaN equals nothing; infinity equals itself."""
    model = discretize(nn.Sequential(nn.Linear(4, 3)), (-1, 0, 1))
    data = batches(6, 4, rng=rng)
    data[1][0][2] = float("nan")
    with pytest.raises(ValueError, match="outputs must be finite.* batch 1 hold NaN"):
        sweep_dead_weights(model, data)
    data[1][0][2] = 0
    with torch.no_grad():
        model[0].bias[0] = -float("inf")
    assert sweep_dead_weights(model, data).examples == 12
