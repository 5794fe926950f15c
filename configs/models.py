"""Which tracker a student or the teacher is, and how large."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from configs.section import Section


class Model(Section):
    """A student or teacher: our tracker with its sizes, or another one by its name with its options.

    Attributes:
        width: channels of the first convolution; later ones are multiples.
        features: size of a frame's feature vector.
        hidden: size of the GRU state.
        dropout: the share of the last state of the GRU that is dropped in training.
        model: a tracker by name (`softbeam bench trackers` lists them), or a class of your own as ``"module:Class"``
            (`clients.models.own` says what it must do); None takes our tracker with the sizes above.
        options: the options of that tracker: keyword arguments of a class of your own; ``pixels`` and ``alignment`` of
            one by name.
    """

    width: int = Field(default=8, ge=1, le=512)
    features: int = Field(default=48, ge=1, le=4096)
    hidden: int = Field(default=64, ge=1, le=4096)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    model: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _sizes_are_of_our_tracker(self) -> Model:
        if self.model is None:
            if self.options:
                raise ValueError("options: these are of a model with a name; our tracker has width, features, hidden")
            return self
        for name in ("width", "features", "hidden", "dropout"):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name}: this is a size of our tracker, and {self.model} has options; leave it out")
        return self
