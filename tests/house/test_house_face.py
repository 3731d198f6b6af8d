"""The promised face: the names, and the first words of each call, that users rely on."""

import importlib
import inspect
from dataclasses import fields, is_dataclass

import pytest
from rooms import ROOMS, driven, example

MODEL = ("model", "loss_fn", "batches")
FUNCTIONS = {
    "connectivity": {
        "find_path": (*MODEL, "start", "end", "*schedule", "*test_batches", "*tangent",
                      "*batch_norm", "*backend"),
        "linear_path": (*MODEL, "start", "end"),
        "fit_curve": (*MODEL, "start", "end", "*kind"),
        "relax": ("path", "weights", "loss_and_grad"),
        "connect_minima": (*MODEL, "minima", "*budget", "*executor"),
        "align": ("model",),
    },
    "dynamics": {
        "log_times": (), "gradient_noise": MODEL, "measure_dynamics": MODEL, "find_phases": (),
        "spectral_density": MODEL, "flat_directions": MODEL,
        "simulate_p_spin": (), "solve_mean_field": (),
    },
    "importance": {
        "ImportanceSampling": ("model", "loss_fn", "*presample", "*score", "*tau_threshold",
                               "*decision", "*tau_rule"),
        "scores": (), "equivalent_batch": (), "batch_multiplier": ("tau",), "pays": (),
        "draw": (), "diagnose": MODEL, "train_with_importance": MODEL,
    },
    "boosting": {
        "train_boosted": ("model", "batches", "*objective", "*alpha", "*cache", "*head", "*stop"),
        "as_chain": ("model",), "edge": (), "cost_matrix": (), "certificate": (),
    },
    "control": {
        "discretize": ("model", "values", "*skip"),
        "train_msa": (*MODEL, "*values", "*rho", "*target_nonzero"),
        "states_and_costates": (), "hamiltonian": (), "maximum_principle_residual": (),
        "error_estimate": (), "basic_msa": MODEL, "monotone_msa": MODEL, "extended_msa": MODEL,
        "pack": ("model",), "load_packed": (), "export_onnx": ("model",),
    },
}  # fmt: skip
ATTRIBUTES = {
    "connectivity": {
        "Path": "pivots weights at length reversed save load",
        "PathResult": "path saddle barrier_max barrier_mid barrier_lin profile cycles",
        "Landscape": "tree minimax merges suggest",
    },
    "dynamics": {"TwoTimeRecorder": "record result state_dict", "PSpin": "forward"},
    "importance": {"ImportanceSampling": "__call__ loss state_dict"},
    "boosting": {"BoostResult": "rounds model", "Chain": ""},
    "control": {"DiscreteMSA": "step state_dict", "PackedModel": "forward bytes save",
                "MSAResult": ""},
}  # fmt: skip


def table(promised):
    return [(room, name, what) for room in ROOMS for name, what in promised[room].items()]


def public(room, name):
    module = importlib.import_module(f"lowland.{room}")
    assert name in module.__all__
    return getattr(module, name)


@pytest.mark.parametrize(("room", "name", "words"), table(FUNCTIONS))
def test_promised_calls(room, name, words):
    """Words in front go by place, in this order; those with a star at least by name."""
    parameters = inspect.signature(public(room, name)).parameters
    by_place = [word for word in words if not word.startswith("*")]
    assert [*parameters][: len(by_place)] == by_place
    assert {word.lstrip("*") for word in words} <= set(parameters)


@pytest.mark.parametrize(("room", "name", "names"), table(ATTRIBUTES))
def test_promised_attributes(room, name, names):
    value = public(room, name)
    known = {*dir(value), *(f.name for f in fields(value) if is_dataclass(value))} if is_dataclass(
        value
    ) else {*dir(value)}  # fmt: skip
    assert set(names.split()) <= known


@pytest.mark.parametrize("room", ROOMS)
def test_what_takes_the_words_of_a_driver_is_tried(room):
    """Whatever of a room takes model, seed, progress, and out is one of its drivers here."""
    module = importlib.import_module(f"lowland.{room}")
    found = {
        function
        for name in module.__all__
        if inspect.isfunction(function := getattr(module, name))
        and {"model", "seed", "progress", "out"} <= set(inspect.signature(function).parameters)
    }
    assert found == set(example(room).DRIVERS)


def test_all_rooms_are_promised():
    assert set(FUNCTIONS) == set(ATTRIBUTES) == set(ROOMS)
    assert driven()
