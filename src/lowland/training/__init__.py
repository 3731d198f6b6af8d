"""Train any module on any batches; device, precision, checkpoints, processes and progress."""

from lowland.training.batches import check_batches, check_not_empty
from lowland.training.checkpoints import Source, match_state, read_state, save_state
from lowland.training.device import autocast, choose_device, distributed, use_threads
from lowland.training.evaluate import (
    Evaluation,
    as_pair,
    checked_losses,
    device_of,
    evaluate,
    kept_buffers,
    kept_mode,
    mistakes,
)
from lowland.training.floats import raised, wide_type
from lowland.training.forwards import plain_attention, replaced
from lowland.training.interrupt import interruptible
from lowland.training.loop import train
from lowland.training.nested import batch_count, map_tensors, tensors_in, to_device
from lowland.training.norms import mode, norm_layers, recalibrate
from lowland.training.plan import Log
from lowland.training.progress import Progress, open_progress
from lowland.training.ranks import all_sum, broadcast, is_main_process, rank_and_world
from lowland.training.result import TrainResult
from lowland.training.seeds import generator, isolated_rng, seed_from
from lowland.training.settings import length_of, plain_items

__all__ = [
    "Evaluation",
    "Log",
    "Progress",
    "Source",
    "TrainResult",
    "all_sum",
    "as_pair",
    "autocast",
    "batch_count",
    "broadcast",
    "check_batches",
    "check_not_empty",
    "checked_losses",
    "choose_device",
    "device_of",
    "distributed",
    "evaluate",
    "generator",
    "interruptible",
    "is_main_process",
    "isolated_rng",
    "kept_buffers",
    "kept_mode",
    "length_of",
    "match_state",
    "map_tensors",
    "mistakes",
    "mode",
    "norm_layers",
    "open_progress",
    "plain_attention",
    "plain_items",
    "raised",
    "rank_and_world",
    "read_state",
    "recalibrate",
    "replaced",
    "save_state",
    "seed_from",
    "tensors_in",
    "to_device",
    "train",
    "use_threads",
    "wide_type",
]
