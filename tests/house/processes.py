"""Drivers in processes of their own, all forked from one that has imported torch."""

import killed_drivers
import two_drivers
import watched
from trials import warm_up


def main(out, deaths):
    """Kill every driver so often; the first time also watch them, and let two work together.

    All of it is left in ``out``, by kind and driver.
    """
    warm_up()
    killed_drivers.main(out / "killed", deaths)
    if deaths == 1:
        watched.main(out / "watched")
        two_drivers.main(out / "together")
