"""Scores in small types: the exact value to 40 digits where softmax has cancelled to nothing."""

import json
from decimal import Decimal, localcontext

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.testing import assert_close

from lowland.importance import cross_entropy_scores, token_scores

CLASSES = 10
TYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def true_score(gap: float, classes: int = CLASSES) -> float:
    """Correct logit ahead of all others by the gap: ``q sqrt(1 + 1/(C-1))``, q the rest's mass."""
    with localcontext() as context:
        context.prec = 40
        rest = (classes - 1) * (-Decimal(gap)).exp()
        mass = rest / (1 + rest)
        return float(mass * (1 + Decimal(1) / (classes - 1)).sqrt())


def ahead(gap, dtype=torch.float32):
    logits = torch.zeros(1, CLASSES, dtype=dtype)
    logits[0, 3] = gap
    return logits, torch.tensor([3])


@pytest.mark.parametrize(
    ("gap", "printed", "lost"), [(12, 5.8286e-5, 0.005), (17, 3.9275e-7, 0.4), (20, 1.9554e-8, 0.6)]
)
def test_the_printed_numbers(gap, printed, lost):
    """O8 itself: the truth, and the share of it that the residual of a softmax is off by."""
    assert true_score(gap) == pytest.approx(printed, rel=2e-5)
    for dtype, least in ((torch.float32, lost), (torch.float16, 0.5), (torch.bfloat16, 0.5)):
        logits, target = ahead(gap, dtype)
        residual = logits.softmax(1)
        residual[0, target] -= 1
        assert abs(residual.norm().item() / printed - 1) > least
        assert cross_entropy_scores(logits, target).item() == pytest.approx(printed, rel=2e-5)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("gap", [-1e4, -800, -100, -40, -3, 0, 5, 12, 17, 20, 30, 60])
def test_every_type_gives_the_true_score(gap, dtype):
    """These gaps are exact in every type, so what is lost would be lost by us."""
    score = cross_entropy_scores(*ahead(gap, dtype))
    accurate = dtype == torch.float64
    assert score.dtype == (torch.float64 if accurate else torch.float32)
    true = true_score(gap) if gap >= 0 else true_behind(-gap)
    assert score.item() == pytest.approx(true, rel=1e-13 if accurate else 1e-6)


def true_behind(gap: float) -> float:
    """Correct logit behind nine equal ones."""
    with localcontext() as context:
        context.prec = 40
        right = (-Decimal(gap)).exp()
        mass = 9 / (9 + right)
        return float(mass * (1 + Decimal(1) / 9).sqrt())


@pytest.mark.parametrize("dtype", TYPES[:3], ids=str)
def test_random_logits_agree_with_double(rng, dtype):
    """The same rounded logits, raised before anything is done: 1e-6 relative at every size."""
    logits = (12 * torch.randn(400, 50, generator=rng)).to(dtype)
    target = logits.argmax(1)
    target[::2] = torch.randint(50, (200,), generator=rng)
    for options in ({}, {"label_smoothing": 0.1}, {"weight": torch.rand(50, generator=rng)}):
        wide = {name: v.double() if name == "weight" else v for name, v in options.items()}
        score = cross_entropy_scores(logits, target, **options)
        double = cross_entropy_scores(logits.double(), target, **wide)
        rtol = 2e-6 if "label_smoothing" not in options else 1e-4
        assert_close(score.double(), double, rtol=rtol, atol=1e-30 if rtol < 1e-5 else 1e-6)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_largest_finite_logits(dtype):
    """No overflow to NaN: a sure right answer scores 0, a sure wrong one sqrt(2)."""
    huge = torch.finfo(dtype).max / 2
    logits = torch.tensor([[huge, -huge], [-huge, huge]], dtype=dtype)
    score = cross_entropy_scores(logits, torch.tensor([0, 0]))
    assert_close(score.double(), torch.tensor([0, 2**0.5]).double(), rtol=1e-6, atol=0)


def peak_of(function, file) -> int:
    """Most bytes that were allocated at one time during a call, above those before it."""
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as recorded:
        result = function()
    recorded.export_chrome_trace(str(file))
    events = [e for e in json.loads(file.read_text())["traceEvents"] if e["name"] == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event["ts"]):
        live += event["args"]["Bytes"]
        peak = max(peak, live)
    del result
    return peak


def test_the_meter_sees_a_softmax(tmp_path):
    """A known amount: the copy of the logits that the naive form makes."""
    logits = torch.zeros(64, 1024)
    assert peak_of(lambda: logits.softmax(1), tmp_path / "trace") == logits.nbytes


@pytest.mark.parametrize("shape", [(64, 50_000), (4096, 1000)], ids=str)
@pytest.mark.parametrize("dtype", TYPES[1:3], ids=str)
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}], ids=str)
def test_added_memory_is_below_half_of_the_logits(tmp_path, rng, shape, dtype, options):
    logits = torch.zeros(shape, dtype=dtype)
    target = torch.randint(shape[1], shape[:1], generator=rng)
    peak = peak_of(lambda: cross_entropy_scores(logits, target, **options), tmp_path / "trace")
    assert peak < logits.nbytes / 2


def test_added_memory_of_sequences(tmp_path, rng):
    logits, target = torch.zeros(8, 64, 8000), torch.randint(8000, (8, 64), generator=rng)
    peak = peak_of(lambda: token_scores(logits, target), tmp_path / "trace")
    assert peak < logits.nbytes / 2
