"""The figure of merges against trees drawn by hand, also where nothing joins some minima."""

import pytest

from lowland.reproduce.draxler2018 import settings, with_minima
from lowland.reproduce.draxler2018_tree_figures import disconnectivity


@pytest.mark.parametrize(
    ("merges", "order"),
    [
        ([[0.5, [0], [2]], [0.7, [0, 2], [1]]], [0, 2, 1]),
        ([[0.5, [1], [2]]], [0, 1, 2]),
        ([], [0, 1, 2]),
    ],
)
def test_every_minimum_stands_once(merges, order):
    losses = [0.1, 0.2, 0.3]
    figure = disconnectivity({"model": "mlp", "losses": losses, "merges": merges})
    *branches, minima = figure["series"]
    assert minima["x"] == [0.0, 1.0, 2.0]
    assert minima["y"] == [losses[k] for k in order]
    assert [branch["y"][1] for branch in branches] == [merge[0] for merge in merges]


def test_more_minima_bring_the_paths_that_join_them():
    many = with_minima(settings("laptop"), 5)
    assert all(one.pairs is None or one.pairs >= 4 for one in many.networks)
    assert [one.pairs for one in with_minima(settings("laptop"), 2).networks] == [
        one.pairs for one in settings("laptop").networks
    ]
