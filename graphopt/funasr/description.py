"""What `recognizer.json` says of each model of a package: its class, what surrounds its graphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphopt.funasr.models.model_class import ModelClass
from graphopt.funasr.models.table import MODELS
from graphopt.runtime.fields import FieldError, Size, read_fields

FORMAT = 3
DESCRIPTION = "recognizer.json"
#: By the task that a package is for, those that may stand beside it.
BESIDE: dict[str, tuple[str, ...]] = {"asr": ("vad", "punc"), "align": ()}


@dataclass(frozen=True)
class Described:
    """A model of a package.

    Attributes:
        model: its class.
        part: what is said of it, `model.part`.
    """

    model: ModelClass
    part: Any


@dataclass(frozen=True)
class Description:
    """All that `recognizer.json` says.

    Attributes:
        format: FORMAT.
        parts: by task, the name of a class as `model` and the fields of its `part`.
    """

    format: Size
    parts: dict[str, dict[str, Any]]

    def read(self) -> dict[str, Described]:
        """The models of the package by task.

        Raises:
            FieldError: naming the field that makes no sense.
        """
        if not any(task in BESIDE for task in self.parts):
            raise FieldError("parts", f"there is none of {', '.join(BESIDE)}")
        return {task: read_part(task, given) for task, given in self.parts.items()}


def read_part(task: str, given: dict[str, Any]) -> Described:
    """What a package says of a model.

    Args:
        task: what the model does there.
        given: the name of its class as `model`, and the fields of its `part`.

    Raises:
        FieldError: naming the field that makes no sense.
    """
    where, name = f"parts.{task}", given.get("model")
    model = MODELS.get(name) if isinstance(name, str) else None
    if model is None or model.task != task:
        known = ", ".join(model.name for model in MODELS.values() if model.task == task)
        raise FieldError(f"{where}.model", f"{name!a:.60} is none of {known or 'any task'}")
    fields = {field: value for field, value in given.items() if field != "model"}
    return Described(model, read_fields(model.part, fields, where))
