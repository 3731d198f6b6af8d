"""The most memory that a call takes, as torch's allocator on the host tells it."""

from torch.profiler import ProfilerActivity, profile


def most_bytes(work):
    """Bytes at the highest point of a call, above those before it."""
    options = {"profile_memory": True, "acc_events": True}  # else torch 2.11 warns of other cycles
    with profile(activities=[ProfilerActivity.CPU], **options) as watched:
        result = work()
    events = watched.profiler.kineto_results.events()
    now = top = 0
    for _, change in sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"):
        now += change
        top = max(top, now)
    del result
    return top
