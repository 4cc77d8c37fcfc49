"""Optional packages: import one when it is used, or say which extra installs it."""

from __future__ import annotations

import importlib
from types import ModuleType

from sparsespike.common.errors import MissingExtraError


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional module.

    Parameters
    ----------
    module : str
        Importable name, for example ``"brian2"``.
    extra : str
        The extra of ``sparsespike`` that installs it.

    Raises
    ------
    MissingExtraError
        If the module cannot be imported; the message names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"package {module!r} cannot be imported ({error}); it is needed here and comes with the extra {extra!r}: "
            f"pip install 'sparsespike[{extra}]'"
        ) from error
