"""How threads wait for each other in training; it imports nothing, since it must come before torch."""

from __future__ import annotations

import os


def sleep_while_waiting() -> None:
    """Let the threads of OpenMP sleep at the end of each loop until all are there, unless the user says otherwise."""
    # by itself they spin: beside another busy process each holds a core that the one they wait for needs
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
