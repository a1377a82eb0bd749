"""Types of the keyword arguments of an architecture's `build` function."""

from typing import Annotated, Literal

from pydantic import Field

Count = Annotated[int, Field(ge=1)]
Counts = Annotated[tuple[Count, ...], Field(min_length=1, strict=False)]
Depths = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1, strict=False)]
Penalty = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, lt=1)]
OptionalCount = Count | None
InputSize = Annotated[int, Field(ge=64, le=1024)]
InceptionInputSize = Annotated[int, Field(ge=75, le=1024)]
Preprocessing = Literal["rescale", "caffe", "tf", "none"]
BuiltIn = Literal["none"]
"""For a backbone that scales pixels itself: any other preprocessing would scale them twice."""
