"""The folder that the program is in, and was in when this was imported.

It may go elsewhere later. ``chat.run``, which starts it again, begins where it began.
"""

from __future__ import annotations

import os


def working_directory() -> str:
    """Return it, or the root where it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return os.sep


STARTED_IN = working_directory()
