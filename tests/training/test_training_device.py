"""Device, precision, threads and processes: chosen as said, and put back as they were."""

import socket
from collections import namedtuple

import pytest
import torch
from two_ranks import add_up

from forked import run_ranks
from lowland.training import autocast, choose_device, distributed, to_device, use_threads
from lowland.training.device import full_float32


def test_auto_is_the_fastest_device_here():
    if torch.cuda.is_available():
        assert choose_device().type == "cuda"
    elif not torch.backends.mps.is_available():
        assert choose_device("auto") == torch.device("cpu")
    assert choose_device("cpu") == choose_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["cpux", "cuda:99"])
def test_unknown_device_is_refused(name):
    with pytest.raises(ValueError, match=rf'device must be "auto" .* got "{name}"'):
        choose_device(name)


def test_bf16_runs_products_in_bfloat16():
    a = torch.eye(3)
    with autocast(torch.device("cpu"), "bf16"):
        assert (a @ a).dtype == torch.bfloat16
    with autocast(torch.device("cpu"), "float32"):
        assert (a @ a).dtype == torch.float32
    with (
        pytest.raises(ValueError, match="precision must be one of .* got 'fp8'"),
        autocast(torch.device("cpu"), "fp8"),
    ):
        pass


def test_tensor_float_32_is_off_inside_and_restored():
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision, matmul.fp32_precision)
    with full_float32():
        assert cudnn.conv.fp32_precision == matmul.fp32_precision == "ieee"
        assert not cudnn.allow_tf32
        assert not matmul.allow_tf32
    assert (cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision, matmul.fp32_precision) == before
    assert cudnn.allow_tf32 == ("tf32" in before[:2])


def test_to_device_keeps_the_containers():
    Pair = namedtuple("Pair", "a b")
    x = torch.ones(2)
    batch = {"x": x, "pair": Pair(x, [x, (x, "word")]), "n": 3}
    moved = to_device(batch, torch.device("meta"))
    assert isinstance(moved["pair"], Pair)
    assert isinstance(moved["pair"].b, list)
    assert moved["pair"].b[1][1] == "word"
    assert moved["n"] == 3
    assert moved["x"].is_meta
    assert moved["pair"].b[1][0].is_meta
    assert to_device(x, torch.device("cpu")) is x


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with use_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        with use_threads(None):
            assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="at least 1; got 0"), use_threads(0):
        pass


def test_one_process_is_rank_0_of_1(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with distributed() as (rank, world):
        assert (rank, world) == (0, 1)
        assert not torch.distributed.is_initialized()


def test_two_gloo_processes_add_up(tmp_path):
    """Two processes with the environment of ``torchrun``: 1 + 2 = 3 on both."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    run_ranks(add_up, port, tmp_path)
    for rank in range(2):
        assert (tmp_path / f"{rank}.txt").read_text() == f"{rank} 2 3.0 gloo"
