"""Pictures as data URIs, so that a page needs no other file."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

from sparsespike.common.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PNG = b"\x89PNG\r\n\x1a\n"


def data_uri(content: bytes) -> str:
    """PNG bytes as a data URI."""
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def png_file(path: Path) -> str:
    """A PNG file as a data URI.

    Raises
    ------
    ConfigError
        If the file cannot be read or is no PNG.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"report: picture {path} cannot be read ({error}); make it again, or remove it") from None
    if not content.startswith(PNG):
        raise ConfigError(f"report: picture {path} is no PNG file; make it again, or remove it")
    return data_uri(content)


def png_figure(figure: Figure) -> str:
    """A matplotlib figure as a PNG in a data URI."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": ""})
    return data_uri(file.getvalue())
