"""What torch says about vmap is for those who chose vmap; here the clock has chosen."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_vmap"]


@contextmanager
def quiet_vmap() -> Iterator[None]:
    """Leave out torch's warning about an operation that vmap runs one by one.

    The result is right, and ``backend="auto"`` measures whether it is slower. To be entered once
    around many steps: it makes Python show other warnings, that it shows once, again.

    Yields:
        Nothing.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
        yield
