"""The JSON description inside a graph file, format version 1, as strict models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sparsespike.common.errors import GraphError
from sparsespike.export.container import shorten
from sparsespike.export.population import NAME, SIZE_LIMIT, BiasMode, Kind, Reset

FORMAT_VERSION = 1

Name = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
Size = Annotated[int, Field(ge=1, le=SIZE_LIMIT)]
Padding = Annotated[int, Field(ge=0, le=SIZE_LIMIT)]


class _Strict(BaseModel):
    """No conversion between types, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class PopulationHeader(_Strict):
    """The fields of a population that are not arrays."""

    name: Name
    kind: Kind
    shape: Annotated[list[Size], Field(min_length=1, max_length=3)]
    bias_mode: BiasMode
    reset: Reset
    value_range: Annotated[list[int], Field(min_length=2, max_length=2)] | None


class CSRHeader(_Strict):
    """A projection whose weights are three tensors."""

    pre: Name
    post: Name
    kind: Literal["csr"]


class Conv2dHeader(_Strict):
    """A projection whose weights are a convolution kernel; pairs are along y and x."""

    pre: Name
    post: Name
    kind: Literal["conv2d"]
    stride: Annotated[list[Size], Field(min_length=2, max_length=2)]
    padding: Annotated[list[Padding], Field(min_length=2, max_length=2)]
    dilation: Annotated[list[Size], Field(min_length=2, max_length=2)]
    groups: Size


ProjectionHeader = Annotated[CSRHeader | Conv2dHeader, Field(discriminator="kind")]


class GraphHeader(_Strict):
    """The whole description."""

    format_version: Literal[1]
    populations: list[PopulationHeader]
    projections: list[ProjectionHeader]
    provenance: dict[str, Any]


def check_header(fields: Any) -> GraphHeader:
    """Validate a parsed description.

    Raises
    ------
    GraphError
        For the first field that is missing, unknown or wrong, naming it, what was found and what was expected.
    """
    if not isinstance(fields, dict):
        raise GraphError(f"description: found {shorten(fields)}, expected a JSON object")
    version = fields.get("format_version")
    if type(version) is not int:  # JSON's true and 1.0 would pass for 1
        raise GraphError(f"format_version: found {shorten(version)}, expected the integer {FORMAT_VERSION}")
    if version > FORMAT_VERSION:
        raise GraphError(
            f"format_version: found {shorten(version)}, expected at most {FORMAT_VERSION}; the file was written by a newer "
            "sparsespike: upgrade with pip install --upgrade sparsespike"
        )
    try:
        return GraphHeader.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        found = "nothing" if first["type"] == "missing" else shorten(first["input"])
        raise GraphError(f"{field}: found {found}, expected otherwise ({first['msg']})") from error
