"""The package brian2: imported when it is used, without what it does to its process, and with preferences that are put back."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sparsespike.common.extras import require

EXACT_NUMBERS: Mapping[str, Any] = {"core.default_float_dtype": np.float64}
"""The preference on which the exactness of a run rests."""


def load_brian2() -> Any:
    """Import brian2.

    The import makes a log file and a copy of the running script in the temporary folder, takes over the hook for uncaught
    exceptions and captures warnings. All this is undone, unless somebody else imported it before.

    Raises
    ------
    MissingExtraError
        If brian2 is not installed.
    """
    if sys.modules.get("brian2") is not None:
        return require("brian2", extra="brian2")
    excepthook, showwarning = sys.excepthook, warnings.showwarning
    b2 = require("brian2", extra="brian2")
    sys.excepthook = excepthook
    if warnings.showwarning is not showwarning:
        logging.captureWarnings(False)
    logger, files = logging.getLogger("brian2"), b2.BrianLogger
    logger.setLevel(logging.WARNING)  # the details are for the file
    if files.file_handler is not None:
        logger.removeHandler(files.file_handler)
        files.file_handler.close()
    for path in filter(None, (files.tmp_log, files.tmp_script)):
        Path(path).unlink(missing_ok=True)
    files.tmp_log = files.tmp_script = files.file_handler = None
    return b2


@contextmanager
def preferences(b2: Any, values: Mapping[str, Any]) -> Iterator[None]:
    """Preferences of Brian2 that hold inside the block."""
    before = {name: b2.prefs[name] for name in values}
    try:
        for name, value in values.items():
            b2.prefs[name] = value
        yield
    finally:
        for name, value in before.items():
            b2.prefs[name] = value
