"""Drivers in processes of their own, all forked from one that has imported torch.

``python processes.py OUT DEATHS`` kills every driver so often; the first time it also watches them,
and lets two work together. All of it is left in ``OUT``, by kind and driver.
"""

import sys
from pathlib import Path

import killed_drivers
import two_drivers
import watched
from trials import warm_up

if __name__ == "__main__":
    out, deaths = Path(sys.argv[1]).resolve(), int(sys.argv[2])
    warm_up()
    killed_drivers.main(out / "killed", deaths)
    if deaths == 1:
        watched.main(out / "watched")
        two_drivers.main(out / "together")
