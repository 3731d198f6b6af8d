"""The rules suggest pairs in the published order, and reach the spanning tree of all pairs."""

from statistics import median

import pytest
import torch

from lowland.connectivity import RULES, Known, spanning_tree, suggest_pair

INF = float("inf")


def explored(rule, saddles, early=None):
    """Try pairs as suggested; give them, and what was known after each."""
    known = torch.full_like(saddles, INF)
    known.diagonal().copy_(saddles.diagonal())
    tried, pairs, history = torch.eye(len(saddles), dtype=torch.bool), [], []
    while (pair := suggest_pair(rule, Known(known, tried, early=early))) is not None:
        a, b = pair
        assert not tried[a, b]
        known[a, b] = known[b, a] = saddles[a, b]
        tried[a, b] = tried[b, a] = True
        pairs.append(pair)
        history.append(known.clone())
    return pairs, history


def height(saddles):
    return sum(float(saddles[pair]) for pair in spanning_tree(saddles))


def uniform(n, seed):
    draws = torch.rand(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    saddles = draws.triu(1) + draws.triu(1).T
    saddles.diagonal().copy_(draws.diagonal() - 1)
    return saddles


def official():
    """Minima 1 to 4 with losses 1 to 4, saddles i^2 + j^2."""
    i = torch.arange(1.0, 5, dtype=torch.float64)
    saddles = i[:, None] ** 2 + i[None] ** 2
    saddles.diagonal().copy_(i)
    return saddles


def test_the_published_order():
    """7.5 of the specification; there minima are counted from 1."""
    pairs, _ = explored("paper", official())
    assert [(a + 1, b + 1) for a, b in pairs] == [(1, 2), (1, 3), (1, 4), (2, 4), (3, 4), (2, 3)]


def test_all_pairs_by_loss():
    pairs, _ = explored("lowest", official())
    assert pairs == [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]


def test_random_saddles_are_the_bad_case():
    """The optimal tree of 10 minima is reached after 41 of 45 pairs in the median (30 draws)."""
    reached = []
    for seed in range(30):
        saddles = uniform(10, seed)
        pairs, history = explored("paper", saddles)
        assert len(set(pairs)) == 45
        best = height(saddles)
        reached.append(next(k for k, known in enumerate(history, 1) if height(known) == best))
    assert 39 <= median(reached) <= 43


@pytest.mark.parametrize("seed", range(5))
def test_a_bounded_search_misses_nothing(seed):
    """Pairs whose higher end is too high to help are left out, here where most have no barrier."""
    draws = torch.Generator().manual_seed(seed)
    losses = torch.rand(8, dtype=torch.float64, generator=draws)
    above = (torch.rand(8, 8, dtype=torch.float64, generator=draws) - 0.7).clamp_min(0).triu(1)
    saddles = torch.maximum(losses[:, None], losses[None]) + above + above.T
    saddles.diagonal().copy_(losses)
    pairs, history = explored("bounded", saddles)
    assert height(history[-1]) == height(saddles)
    assert len(pairs) < 28


def test_where_no_barrier_is_the_star_is_enough():
    """Every saddle is its higher end, so no way round can be lower."""
    losses = torch.tensor([3.0, 1, 2, 5], dtype=torch.float64)
    pairs, _ = explored("bounded", torch.maximum(losses[:, None], losses[None]))
    assert pairs == [(1, 2), (0, 1), (1, 3)]
    assert len(explored("paper", torch.maximum(losses[:, None], losses[None]))[0]) == 6


@pytest.mark.parametrize("rule", RULES)
def test_what_is_under_way_is_not_suggested_again(rule):
    """Pairs chosen before any result: all different; the star first, then nothing to go round."""
    saddles = torch.full((4, 4), INF, dtype=torch.float64)
    saddles.diagonal().copy_(torch.arange(4))
    tried, under_way = torch.eye(4, dtype=torch.bool), []
    early = official()  # its spanning tree is the star
    while (pair := suggest_pair(rule, Known(saddles, tried, tuple(under_way), early))) is not None:
        tried[pair] = tried[pair[::-1]] = True
        under_way.append(pair)
    star = [(0, 1), (0, 2), (0, 3)]
    assert under_way == (star if rule != "lowest" else explored("lowest", official())[0])


def test_a_path_that_leads_nowhere_is_gone_round():
    """A saddle that is infinite joins nothing: the star takes its next center."""
    saddles = torch.full((3, 3), INF, dtype=torch.float64)
    saddles.diagonal().copy_(torch.arange(3))
    saddles[0, 1] = saddles[1, 0] = 5
    tried = saddles.isfinite()
    tried[0, 2] = tried[2, 0] = True
    assert suggest_pair("paper", Known(saddles, tried)) == (1, 2)
    tried[1, 2] = tried[2, 1] = True
    assert suggest_pair("paper", Known(saddles, tried)) is None


def test_first_cycles_that_tell_all_leave_nothing_to_find():
    """If they rank the pairs as the finished paths do, the tree takes as many pairs as edges."""
    saddles = uniform(10, 0)
    pairs, history = explored("early", saddles, early=3 * saddles)
    assert pairs[:9] == spanning_tree(saddles)
    assert height(history[8]) == height(saddles)


def test_the_early_order():
    """By hand: the tree of early saddles from its lowest, then ways round the highest edge.

    Early tree 0-1, 1-2, 2-3; finished, its edges are 5, 9 and 7. Round 1-2, the highest, lead 0-2,
    0-3 and 1-3, of which 1-3 was the lowest early; it is 4, so 2-3 is the highest edge, between
    {0, 1, 3} and {2}, and only 0-2 goes round it. It is 8, and 0-3 is what is left.
    """
    early = symmetric({(0, 1): 10, (1, 2): 11, (2, 3): 12, (1, 3): 13, (0, 2): 14, (0, 3): 15})
    final = symmetric({(0, 1): 5, (1, 2): 9, (2, 3): 7, (1, 3): 4, (0, 2): 8, (0, 3): 6})
    pairs, _ = explored("early", final, early)
    assert pairs == [(0, 1), (1, 2), (2, 3), (1, 3), (0, 2), (0, 3)]


def symmetric(heights):
    saddles = torch.zeros(4, 4, dtype=torch.float64)
    for pair, value in heights.items():
        saddles[pair] = saddles[pair[::-1]] = value
    return saddles


@pytest.mark.parametrize("seed", range(3))
def test_first_cycles_that_tell_nothing_cost_no_tree(seed):
    """The order is bad then, and the tree at the end the best all the same."""
    saddles = uniform(8, seed)
    _, history = explored("early", saddles, early=uniform(8, 100 + seed))
    assert height(history[-1]) == height(saddles)


def test_an_early_rule_needs_early_saddles():
    known = Known(official(), torch.eye(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="needs the saddle of every pair after its first cycle"):
        suggest_pair("early", known)


def test_an_unknown_rule():
    known = Known(official(), torch.eye(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="suggest must be one of 'paper', .*; got 'all'"):
        suggest_pair("all", known)
