"""The most memory that a call takes, as torch's allocator on the host tells it."""

from torch.profiler import ProfilerActivity, profile


def most_bytes(work):
    """Bytes at the highest point of a call, above those before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        result = work()
    events = watched.profiler.kineto_results.events()
    now = top = 0
    for _, change in sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"):
        now += change
        top = max(top, now)
    del result
    return top
