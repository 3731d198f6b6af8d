"""Explore the landscape between many minima: a star first, then ways round its highest edges."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from pathlib import Path as FilePath
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from lowland.connectivity.band import known_backend, usable_backend
from lowland.connectivity.checks import refuse_no_whole
from lowland.connectivity.edge import Edge, name_of
from lowland.connectivity.graph import spanning_tree
from lowland.connectivity.landscape import Landscape
from lowland.connectivity.minima import fingerprint, gather, measured, read_minima
from lowland.connectivity.pairs import Workshop, claims_of, refuse_executor
from lowland.connectivity.placement import known_place
from lowland.connectivity.plan import Plan
from lowland.connectivity.schedule import Schedule, schedule_named
from lowland.connectivity.suggest import BEGUN, known_rule
from lowland.connectivity.told import tell_interrupted, tell_pair
from lowland.errors import NoEffectWarning
from lowland.results import Status, open_folder, plain
from lowland.training import (
    Log,
    Source,
    broadcast,
    is_main_process,
    open_progress,
    rank_and_world,
    use_threads,
)

__all__ = ["connect_minima"]

# Pairs at once on an executor that does not say how many workers it has.
IN_FLIGHT = 4


def connect_minima(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Any,
    minima: Sequence[Source],
    *,
    schedule: str | Schedule = "laptop",
    budget: int | None = None,
    suggest: str = "bounded",
    executor: Any = None,
    in_flight: int | None = None,
    threads: int | None = None,
    test_batches: Any = None,
    evaluation_batches: Any = None,
    tangent: str | None = None,
    batch_norm: str | None = None,
    backend: str = "auto",
    pivots_on: str = "auto",
    seed: int = 0,
    out: str | FilePath | None = None,
    restart: bool = False,
    progress: Any = False,
    log: Log | None = None,
) -> Landscape:
    """Find the lowest spanning tree of paths between many minima.

    A rule chooses pair after pair, AutoNEB finds a path for each, and the spanning tree of the
    saddles bounds the barrier between every two minima. The model itself is not changed. Each path
    is the one that :func:`lowland.connectivity.find_path` finds with the same arguments.

    **Cost.** ``suggest="early"`` runs the first cycle of every pair, those included that are never
    finished. It has few pivots: on the digits it takes 16 % of the gradient evaluations of a search
    of four equal cycles, and 3.5 % with the paper's fourteen. There are as many first cycles as
    pairs: for a hundred minima that is 50 for every edge of the tree.

    **Order.** With ``in_flight=k`` a pair is chosen when all results but those of the ``k - 1``
    pairs before it are known, whichever is finished first. The outcome therefore depends on ``k``
    and on nothing else: not on timing, on the executor, or on the number of machines.

    **Machines.** With ``out`` every pair has a folder, ``out/pairs/a-b``, and goes on there in the
    middle after a kill. The same call from several machines on one folder shares the pairs out;
    then ``in_flight`` is their number over all machines. Last digits depend on the number of
    threads, and on the clock with ``backend="auto"``: name both for the same bits everywhere.
    Another rule or budget may use the same folder; the result holds the pairs of its own order.

    Args:
        model: The architecture.
        loss_fn: From output and target to one loss per example, shape ``(batch,)``.
        batches: Training batches of (inputs, target) to relax on; readable again and again.
        minima: Two or more state dicts, modules or checkpoint files.
        schedule: ``"laptop"``, ``"paper"``, ``"official"``, or a :class:`Schedule`.
        budget: Number of pairs to try in all, earlier calls included; None until the rule expects
            nothing more.
        suggest: ``"paper"`` tries a way round every edge of the tree until all pairs are known;
            ``"bounded"`` does so but leaves out pairs that cannot be lower; ``"early"`` runs the
            first cycle of every pair, whatever the budget, and finishes the spanning tree of what
            that has shown before it looks for ways round; ``"lowest"`` takes all pairs by loss.
        executor: Runs pairs in other processes by ``submit(function, *arguments)`` and ``result()``
            of what that returns: a process pool (of the context ``"spawn"``), dask, submitit. None
            runs them here, one after the other.
        in_flight: Pairs under way at once; None is 1 here, and the number of workers of an
            executor.
        threads: CPU threads in all, None for as many as now; on an executor each pair gets its
            share.
        test_batches: Test batches, for test loss and error of minima and saddles.
        evaluation_batches: Training data as the reported losses see it; by default
            ``batches.evaluation()`` if there is one (un-augmented), else ``batches``.
        tangent: As for :func:`lowland.connectivity.find_path`.
        batch_norm: Likewise.
        backend: Likewise.
        pivots_on: Likewise; the minima themselves lie where the model is.
        seed: Decides the order of the batches, the same for every pair.
        out: Folder for pairs and the result.
        restart: Begin anew; what lies in ``out`` is moved to ``<out>.old-1``, ``-2`` and so on.
        progress: True, False, None (only on a terminal), or a running progress display.
        log: Called as ``log(values, step)`` with each pair that this call has searched, here or on
            its executor; the step is the number of pairs finished.

    Returns:
        What is known of the landscape; ``.status`` says how the exploration ended. A pair that
        diverged is an edge with that status, and the exploration goes on.

    Raises:
        ValueError: If there are fewer than two minima, they do not fit, one has no finite loss, or
            a setting is wrong.

    Warns:
        NoEffectWarning: If no path was lower than the straight line of its ends.

    Source:
        Draxler et al., ICML 2018, Algorithm 3.
    """
    states = read_minima(model, minima)
    workers = flight(executor, in_flight)
    refuse_settings(budget, suggest)
    if suggest in BEGUN and out is None:
        refuse_company(suggest, executor, rank_and_world()[1])
    schedule = schedule_named(schedule)
    options = {
        "schedule": replace(
            schedule,
            tangent=tangent or schedule.tangent,
            batch_norm=batch_norm or schedule.batch_norm,
        ),
        "test_batches": test_batches,
        "evaluation_batches": evaluation_batches,
        "seed": seed,
    }
    known_place(pivots_on)
    task, vectors = gather(model, loss_fn, batches, states, **options)
    settings = fingerprint(task, vectors) | {"schedule": plain(options["schedule"])}
    settings["backend"] = known_backend(backend)
    folder = None
    if out is not None:
        folder = open_folder(out, settings, restart) if is_main_process() else FilePath(out)
    options["backend"] = usable_backend(backend, task.stack, task.start, task.deciding[0])
    options["pivots_on"] = pivots_on
    each = threads if executor is None else max(1, (threads or torch.get_num_threads()) // workers)
    with (
        open_progress(progress) as display,
        use_threads(each),
        claims_of(folder) as claims,
        place_for(folder, suggest) as place,
    ):
        found = measured(task, vectors, options["backend"], folder)
        del vectors  # many networks that no search needs
        workshop = Workshop(
            model, loss_fn, batches, states, options, each, place, claims, executor, display
        )
        plan = Plan(found["train_loss"], suggest, workers, budget)
        status, message = explore(plan, workshop, display, log)
        kept = {} if folder else {pair: workshop.result(pair) for pair in plan.edges}
    landscape = Landscape(
        minima=found,
        edges=tuple(plan.edges.values()),
        status=status,
        message=message,
        settings=settings
        | {"suggest": suggest, "in_flight": workers, "budget": budget}
        | {"threads": each or torch.get_num_threads()},
        seconds=sum(edge.seconds for edge in plan.edges.values()),
        folder=folder,
        kept=kept,
        early=plan.early,
    )
    if folder is not None and is_main_process():
        landscape.save(folder)
    broadcast(None)  # other ranks return when everything is on disk
    tell(landscape)
    return landscape


def flight(executor: Any, in_flight: int | None) -> int:
    """How many pairs are under way at once."""
    if executor is not None:
        refuse_executor(executor, rank_and_world()[1])
    if in_flight is None:
        return 1 if executor is None else getattr(executor, "_max_workers", None) or IN_FLIGHT
    refuse_no_whole(1, in_flight=in_flight)
    return in_flight


def refuse_company(suggest: str, executor: Any, world: int) -> None:
    """Refuse processes that could not go on with what another one has begun."""
    if executor is not None or world > 1:
        raise ValueError(
            f"suggest={suggest!r} goes on with searches that it has begun, so several processes "
            "need a folder that all of them see; got out=None. Pass out=, or another rule."
        )


def refuse_settings(budget: int | None, suggest: str) -> None:
    """Refuse what no exploration can be made with."""
    if budget is not None:  # no limit
        refuse_no_whole(1, budget=budget)
    known_rule(suggest)


def explore(plan: Plan, workshop: Workshop, display: Any, log: Log | None) -> tuple[Status, str]:
    """Try pair after pair; results are taken in the order of their choice."""
    count = len(plan.losses)
    total = min(plan.budget or inf, count * (count - 1) // 2)
    with display.task("pairs", int(total)) as bar, quiet():
        try:
            begin(plan, workshop, display)
            while plan.fill():
                result = workshop.finish_first(plan.under_way)
                pair = plan.under_way.pop(0)
                plan.edges[pair] = Edge.of(pair, result)
                if pair in workshop.searched:
                    tell_pair(log, plan.edges[pair], len(plan.edges))
                bar.advance(note=name_of(pair))
        except KeyboardInterrupt:
            return Status.INTERRUPTED, f"{len(plan.edges)} pairs are finished."
        finally:
            workshop.stop()
    return Status.FINISHED, " ".join(sentences(plan))


def begin(plan: Plan, workshop: Workshop, display: Any) -> None:
    """Run the first cycle of every pair, if the rule wants to see it."""
    left = plan.to_begin()
    with display.task("first cycles", len(left)) as bar:
        while left:
            result = workshop.finish_first(left[: plan.in_flight], until=1)
            plan.look_at(left.pop(0), result)
            bar.advance()


def sentences(plan: Plan) -> list[str]:
    """What a finished exploration leaves to be said."""
    found = []
    diverged = [name_of(pair) for pair, e in plan.edges.items() if e.status is Status.NOT_FINITE]
    if diverged:
        found.append(f"diverged, with the last good path kept: {', '.join(diverged)}.")
    missing = len(plan.losses) - 1 - len(spanning_tree(plan.known().saddles))
    if missing:
        found.append(f"{missing} more paths are needed to join all minima.")
    return found


@contextmanager
def place_for(folder: FilePath | None, suggest: str) -> Iterator[FilePath | None]:
    """Where searches lie: in the folder, or for a while on disk if the rule leaves some begun."""
    if folder is not None or suggest not in BEGUN:
        yield folder
    else:
        with TemporaryDirectory() as place:
            yield FilePath(place)


@contextmanager
def quiet() -> Iterator[None]:
    """Leave it to the whole exploration to say that nothing was gained."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoEffectWarning)
        yield


def tell(landscape: Landscape) -> None:
    """Say what the caller should know about the outcome."""
    if landscape.status is Status.INTERRUPTED:
        tell_interrupted(landscape.message, landscape.folder)
    relaxed = [edge for edge in landscape.edges if len(edge.cycles) > 1]
    if relaxed and not any(edge.best_cycle for edge in relaxed):
        warnings.warn(
            "no relaxed path was lower than the straight line of its ends: the minima lie in one "
            "basin, or the learning rates are too high for this model.",
            NoEffectWarning,
            stacklevel=3,
        )
