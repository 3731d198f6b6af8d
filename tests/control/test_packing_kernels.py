"""Products of packed weights are those of their signs: to the bit where sums are integers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import conv1d, conv2d, conv3d
from torch.testing import assert_close

from lowland.control.packing import compiled, kernels

FORMATS = ("bit1", "bit2planes", "sparse16", "gaps")
CONVOLUTIONS = {1: conv1d, 2: conv2d, 3: conv3d}


def words(bits: np.ndarray) -> Tensor:
    """32 columns in a word, rows filled up to 64 columns, (words, rows)."""
    padded = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 64)))
    rows = np.packbits(padded, axis=1, bitorder="little").view("<u4")
    return torch.from_numpy(np.ascontiguousarray(rows.T).view(np.int32))


def stream(bits: list[int]) -> Tensor:
    """Bits in bytes, the first the least."""
    return torch.from_numpy(np.packbits(np.array(bits, np.uint8), bitorder="little"))


def pack(signs: Tensor, format: str, k: int = 2) -> dict[str, Tensor]:
    """A format, written down from its definition."""
    s = signs.numpy()
    if format == "bit1":
        return {"bits": words(s > 0)}
    if format == "bit2planes":
        return {"plus": words(s > 0), "minus": words(s < 0)}
    if format == "sparse16":
        lists = [np.flatnonzero(row == sign) for row in s for sign in (1, -1)]
        starts = np.cumsum([0, *map(len, lists)]).astype(np.int32)
        columns = np.concatenate(lists).astype(np.uint16)
        return {"columns": torch.from_numpy(columns), "starts": torch.from_numpy(starts)}
    places = np.flatnonzero(s)
    gaps = (np.diff(places, prepend=-1) - 1).tolist()
    return {
        "quotients": stream([bit for g in gaps for bit in [0] * (g >> k) + [1]]),
        "remainders": stream([g >> i & 1 for g in gaps for i in range(k)]),
        "signs": stream([int(value > 0) for value in s.flat[places]]),
        "gap_bits": torch.tensor([k], dtype=torch.int32),
    }


def draw_signs(rows: int, columns: int, format: str, rng: torch.Generator) -> Tensor:
    """Signs that a format can hold; half of them zero, or none."""
    if format == "bit1":
        return torch.randint(2, (rows, columns), generator=rng) * 2 - 1
    signs = torch.randint(-2, 3, (rows, columns), generator=rng)
    return signs * (signs.abs() < 2)


def draw_integers(*shape: int, rng: torch.Generator) -> Tensor:
    return torch.randint(-127, 128, shape, generator=rng)


@pytest.fixture(params=kernels.available())
def level(request):
    """What runs: each instruction set of this machine, then plain torch."""
    kernels.force(request.param)
    yield request.param
    kernels.force(None)


@pytest.fixture(params=(1, 2))
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def check_product(format: str, signs: Tensor, x: Tensor) -> None:
    """Equal to the product of integers, which has no rounding."""
    found = kernels.multiply(format, pack(signs, format), *signs.shape, x.to(torch.float32))
    assert found.is_contiguous()
    assert torch.equal(found, (x @ signs.T).to(torch.float32))


@pytest.mark.parametrize("format", FORMATS)
@given(
    rows=st.integers(1, 90),
    columns=st.integers(1, 150),
    batch=st.integers(1, 70),
    seed=st.integers(0, 2**20),
)
def test_sums_of_integers_are_exact_at_any_shape(format, rows, columns, batch, seed):
    rng = torch.Generator().manual_seed(seed)
    signs = draw_signs(rows, columns, format, rng)
    x = draw_integers(batch, columns, rng=rng)
    for level in kernels.available():
        kernels.force(level)
        check_product(format, signs, x)
        check_product(format, signs, x[:3])
    kernels.force(None)


EDGES = [(1, 1), (255, 31), (257, 2049), (16, 4), (64, 64), (321, 2047), (8, 4100)]


@pytest.mark.parametrize("format", FORMATS[:3])
@pytest.mark.parametrize(("rows", "columns"), EDGES)
def test_sums_are_exact_at_the_edges_of_blocks(level, format, rows, columns, rng):
    signs = draw_signs(rows, columns, format, rng)
    for batch in (0, 1, 3, 48, 64):
        check_product(format, signs, draw_integers(batch, columns, rng=rng))


@pytest.mark.parametrize(("rows", "columns"), EDGES)
def test_gaps_are_expanded_to_exact_sums(rows, columns, rng):
    """They become lists, which the test above holds to every level."""
    signs = draw_signs(rows, columns, "gaps", rng)
    check_product("gaps", signs, draw_integers(3, columns, rng=rng))


@pytest.mark.parametrize("format", FORMATS[:3])
def test_rows_and_tiles_are_shared_among_threads(level, threads, format, rng):
    """Large enough that a second thread is worth its start."""
    signs = draw_signs(1001, 1100, format, rng)
    for batch in (1, 3, 64):
        check_product(format, signs, draw_integers(batch, 1100, rng=rng))


@pytest.mark.parametrize("format", ["bit1", "bit2planes", "sparse16"])
@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("sign", [1, -1])
def test_longest_rows_of_equal_signs_do_not_overflow(level, format, batch, sign):
    """65,536 times 127 = 8,323,072, beyond int16 and within 2^24."""
    signs = torch.full((3, 65_536), sign)
    x = torch.full((batch, 65_536), 127, dtype=torch.int8)
    x[-1] = -127
    expected = torch.full((batch, 3), 8_323_072 * sign, dtype=torch.int32)
    expected[-1] *= -1
    held = pack(signs, format)
    assert torch.equal(kernels.multiply(format, held, 3, 65_536, x), expected)
    assert torch.equal(kernels.multiply(format, held, 3, 65_536, x.float()), expected.float())


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
)
def test_integers_of_any_type_give_int32(level, format, dtype, rng):
    """Those beyond 24 bits too, as digits."""
    low, high = (0, 2) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    low, high = max(low, -(10**7)), min(high, 10**7)
    x = torch.randint(low, high, (5, 70), generator=rng).to(dtype)
    signs = draw_signs(9, 70, format, rng)
    found = kernels.multiply(format, pack(signs, format), 9, 70, x)
    assert found.dtype == torch.int32
    assert torch.equal(found.long(), x.long() @ signs.T)


@pytest.mark.parametrize("value", [-128, 127])
def test_integers_stay_exact_where_float32_sums_do_not(value):
    """400,000 x 128 = 51,200,000 is beyond 2^24, so one float32 sum would not do."""
    x = torch.full((2, 400_001), value, dtype=torch.int8)
    signs = torch.ones(2, 400_001, dtype=torch.int64)
    found = kernels.multiply("bit1", pack(signs, "bit1"), 2, 400_001, x)
    assert found.tolist() == [[400_001 * value] * 2] * 2


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_floats_are_near_sums_in_float64(level, format, batch, rng):
    """Within 1e-5 of the largest output."""
    signs = draw_signs(130, 3000, format, rng)
    x = torch.randn(batch, 3000, generator=rng)
    expected = x.double() @ signs.double().T
    found = kernels.multiply(format, pack(signs, format), 130, 3000, x)
    assert_close(found.double(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("format", FORMATS)
def test_memory_of_any_stride_is_read(level, format, rng):
    signs = draw_signs(20, 40, format, rng)
    many = draw_integers(80, 80, rng=rng)
    for x in (many[:40, :].T[:, :40], many[::2, ::2], many[3:4, 5:45], many[:1, :40].expand(9, -1)):
        check_product(format, signs, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_results_have_the_type_of_the_floats(level, dtype, rng):
    """Integers up to 256 are exact in each, and so are their rounded sums."""
    signs = draw_signs(20, 40, "bit1", rng)
    x = torch.randint(-3, 4, (2, 40), generator=rng)
    found = kernels.multiply("bit1", pack(signs, "bit1"), 20, 40, x.to(dtype))
    assert found.dtype == dtype
    assert torch.equal(found.long(), x @ signs.T)


def test_infinite_activations_meet_no_zero_weight(level):
    """A zero weight does not read its activation."""
    if level == "portable":
        pytest.skip("a dense product multiplies zero with infinity")
    signs = torch.tensor([[1, 0, -1, 0, 1]])
    x = torch.tensor([[2.0, float("inf"), 3.0, float("nan"), 5.0]])
    for format in ("bit2planes", "sparse16", "gaps"):
        assert kernels.multiply(format, pack(signs, format), 1, 5, x).item() == 4


GEOMETRIES = [
    # batch, channels, image, rows, kernel, stride, padding, dilation, groups
    (1, 1, (1,), 1, (1,), (1,), (0,), (1,), 1),
    (3, 4, (17,), 6, (5,), (2,), (3,), (2,), 2),
    (2, 3, (7, 9), 5, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (2, 4, (5, 8), 6, (2, 3), (2, 1), (0, 2), (1, 2), 2),
    (1, 6, (11, 6), 6, (3, 5), (2, 3), (1, 4), (2, 1), 6),
    (5, 2, (8, 8), 4, (1, 1), (2, 2), (0, 0), (1, 1), 1),
    (2, 2, (3, 3), 2, (1, 1), (1, 1), (2, 3), (1, 1), 1),
    (64, 8, (4, 4), 16, (3, 3), (1, 1), (1, 1), (1, 1), 2),
    (1, 16, (32, 32), 40, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (2, 2, (4, 5, 6), 3, (2, 3, 2), (1, 2, 1), (1, 0, 1), (1, 1, 2), 1),
]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_convolution_is_that_of_torch(level, format, geometry, rng):
    batch, channels, image, rows, kernel, *settings, groups = geometry
    signs = draw_signs(rows, channels // groups * int(np.prod(kernel)), format, rng)
    x = draw_integers(batch, channels, *image, rng=rng)
    dense = signs.view(rows, -1, *kernel)
    expected = CONVOLUTIONS[len(kernel)](x, dense, None, *settings, groups)
    arguments = (format, pack(signs, format), *signs.shape)
    found = kernels.convolve(*arguments, x.float(), kernel, *settings, groups)
    assert found.is_contiguous()
    assert torch.equal(found, expected.float())
    found = kernels.convolve(*arguments, x.to(torch.int8), kernel, *settings, groups)
    assert torch.equal(found, expected.int())


@given(st.data())
def test_convolution_of_any_geometry(data):
    small = st.integers(1, 3)
    kernel, stride, dilation = (tuple(data.draw(small) for _ in range(2)) for _ in range(3))
    padding = tuple(data.draw(st.integers(0, 4)) for _ in range(2))
    reach = [d * (k - 1) + 1 - 2 * p for d, k, p in zip(dilation, kernel, padding, strict=True)]
    image = [data.draw(st.integers(max(1, least), max(1, least) + 8)) for least in reach]
    groups, batch = data.draw(small), data.draw(small)
    channels, rows = groups * data.draw(small), groups * data.draw(small)
    rng = torch.Generator().manual_seed(data.draw(st.integers(0, 2**20)))
    x = draw_integers(batch, channels, *image, rng=rng)
    for format in ("bit1", "sparse16"):
        signs = draw_signs(rows, channels // groups * kernel[0] * kernel[1], format, rng)
        dense = signs.view(rows, -1, *kernel)
        expected = conv2d(x, dense, None, stride, padding, dilation, groups).float()
        found = kernels.convolve(
            format, pack(signs, format), *signs.shape, x.float(),
            kernel, stride, padding, dilation, groups,
        )  # fmt: skip
        assert torch.equal(found, expected)


def test_convolution_is_shared_among_threads(level, threads, rng):
    signs = draw_signs(32, 32 * 9, "bit1", rng)
    x = draw_integers(2, 32, 33, 20, rng=rng)
    found = kernels.convolve(
        "bit1", pack(signs, "bit1"), *signs.shape, x.float(), (3, 3), (1, 1), (1, 1), (1, 1), 1
    )
    assert torch.equal(found, conv2d(x, signs.view(32, 32, 3, 3), padding=1).float())


@pytest.mark.parametrize("k", [0, 1, 3, 9, 31])
def test_gaps_expand_to_lists(level, k, rng):
    """Rows without a nonzero weight, at both ends and between, are empty lists."""
    signs = draw_signs(40, 37, "gaps", rng) * (torch.rand(40, 37, generator=rng) < 0.2)
    signs[[0, 7, 8, 39]] = 0
    found = kernels.expand(pack(signs, "gaps", k), 40, 37)
    expected = pack(signs, "sparse16")
    assert torch.equal(found["columns"].int(), expected["columns"].int())
    assert torch.equal(found["starts"], expected["starts"])


def test_gaps_beyond_the_matrix_are_refused(rng):
    held = pack(draw_signs(40, 37, "gaps", rng), "gaps")
    with pytest.raises(ValueError, match=r"gaps must end within"):
        kernels.expand(held, 20, 37)
    with pytest.raises(ValueError, match="at most 65,?536 columns; got 70000"):
        kernels.expand(held, 1, 70_000)


def test_gaps_of_more_columns_than_lists_can_name(level, rng):
    signs = draw_signs(2, 70_000, "gaps", rng)
    check_product("gaps", signs, torch.randint(-9, 10, (2, 70_000), generator=rng))


@pytest.mark.parametrize("format", FORMATS)
def test_gradients_in_the_input_are_those_of_the_dense_product(level, format, rng):
    signs = draw_signs(7, 11, format, rng)
    held = pack(signs, format)
    x = torch.randn(3, 11, generator=rng, requires_grad=True)
    kernels.multiply(format, held, 7, 11, x).square().sum().backward()
    dense = signs.float()
    assert_close(x.grad, 2 * x.detach() @ dense.T @ dense)


def test_transforms_of_torch_see_a_plain_product(level, rng):
    """Forward derivatives and vmap, whose tensors have no memory of their own."""
    signs = draw_signs(7, 11, "bit1", rng)
    held, dense = pack(signs, "bit1"), signs.float()
    x, direction = torch.randn(2, 4, 3, 11, generator=rng)

    def product(values: Tensor) -> Tensor:
        return kernels.multiply("bit1", held, 7, 11, values)

    assert_close(torch.func.vmap(product)(x), x @ dense.T)
    _, change = torch.func.jvp(product, (x[0],), (direction[0],))
    assert_close(change, direction[0] @ dense.T)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x[0], direction[0])
        change = torch.autograd.forward_ad.unpack_dual(product(dual)).tangent
    assert_close(change, direction[0] @ dense.T)


def test_without_a_compiler_torch_does_the_work(monkeypatch, rng):
    monkeypatch.setattr(compiled, "compiled", None)
    monkeypatch.setattr(compiled, "chosen", ["portable"])
    assert (kernels.available(), kernels.level()) == (("portable",), "portable")
    signs = draw_signs(20, 40, "gaps", rng)
    check_product("gaps", signs, draw_integers(3, 40, rng=rng))
    with pytest.raises(ValueError, match="must be one of portable; got 'avx2'"):
        kernels.force("avx2")


def test_level_is_the_fastest_or_the_one_forced():
    assert kernels.level() == kernels.available()[0]
    kernels.force("portable")
    assert kernels.level() == "portable"
    kernels.force(None)
    assert kernels.level() == kernels.available()[0]


@pytest.mark.untyped
def test_bad_products_are_refused_in_words(rng):
    held = pack(torch.ones(4, 70), "bit1")
    with pytest.raises(ValueError, match=r"x must have shape \(batch, 70\); got \(2, 71\)"):
        kernels.multiply("bit1", held, 4, 70, torch.ones(2, 71))
    with pytest.raises(ValueError, match=r"x must have shape \(batch, 70\); got \(70,\)"):
        kernels.multiply("bit1", held, 4, 70, torch.ones(70))
    with pytest.raises(TypeError, match=r"floats or integers; got torch.complex64"):
        kernels.multiply("bit1", held, 4, 70, torch.ones(2, 70, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"products must fit int32; got 2800000000"):
        kernels.multiply("bit1", held, 4, 70, torch.full((2, 70), 40_000_000))
    with pytest.raises(ValueError, match=r"integers must lie within int32; got 0 to 4294967296"):
        kernels.multiply("bit1", held, 4, 70, torch.arange(70)[None] // 69 * 2**32)


@pytest.mark.skipif(kernels.level() == "portable", reason="no kernels in C here")
def test_tensors_of_another_shape_never_reach_the_kernels():
    held = pack(torch.ones(4, 70), "bit1")
    with pytest.raises(ValueError, match=r"of shape \(4, 5\); got bits \(4, 4\)"):
        kernels.multiply("bit1", held, 5, 70, torch.ones(2, 70))
    held = pack(torch.ones(4, 70), "sparse16")
    with pytest.raises(ValueError, match=r"of shape \(11,\); got columns \(280,\), starts \(9,\)"):
        kernels.multiply("sparse16", held, 5, 70, torch.ones(2, 70))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"x": torch.ones(1, 3, 5, 5)}, "x must have 4 axes and 2 channels"),
        ({"x": torch.ones(2, 5, 5)}, "x must have 4 axes and 2 channels"),
        ({"groups": 2}, "x must have 4 axes and 4 channels"),
        ({"x": torch.ones(1, 2, 2, 5)}, "must fit the padded image"),
        ({"stride": (0, 1)}, "must be at least 1"),
        ({"padding": (-1, 0)}, "padding at least 0"),
        ({"padding": (0,)}, "must name the same one to three axes"),
        ({"kernel_size": (), "stride": ()}, "one to three axes"),
    ],
)
@pytest.mark.untyped
def test_bad_convolutions_are_refused_in_words(change, sentence):
    good = {
        "x": torch.ones(1, 2, 5, 5), "kernel_size": (3, 3), "stride": (1, 1), "padding": (0, 0),
        "dilation": (1, 1), "groups": 1,
    }  # fmt: skip
    held = pack(torch.ones(3, 18), "bit1")
    with pytest.raises(ValueError, match=sentence):
        kernels.convolve("bit1", held, 3, 18, **(good | change))
