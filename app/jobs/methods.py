"""What belongs to one method: the data it takes, its hyperparameters, its grader."""

from typing import Any

from pydantic import ValidationError

from app.datasets.formats import Format
from app.datasets.tables import DatasetVersion
from app.graders import spec
from app.graders.errors import GraderInvalid
from app.jobs.errors import HyperparameterInvalid, JobInputInvalid
from app.training.hyperparameters import HYPERPARAMETERS, Hyperparameters

FORMATS = {
    "supervised": Format.CHAT,
    "dpo": Format.PREFERENCE,
    "reinforcement": Format.REINFORCEMENT,
}


def hyperparameters(method: str, asked: dict[str, Any]) -> Hyperparameters:
    """What was asked, checked. Raises HyperparameterInvalid, naming the range."""
    known = HYPERPARAMETERS.get(method)
    if known is None:
        raise JobInputInvalid(
            f"This server knows the methods {', '.join(HYPERPARAMETERS)}.", path=("method",)
        )
    try:
        return known.model_validate(asked)
    except ValidationError as wrong:
        first = wrong.errors()[0]
        names = [str(name) for name in first["loc"]] or ["hyperparameters"]
        # Below it, places in a union of types are named, which are not the customer's words.
        names = names[: 2 if names[0] == "early_stopping" else 1]
        given = repr(first.get("input"))[:80]
        shown = [camel(name) for name in names]
        raise HyperparameterInvalid(
            f"{'.'.join(shown)}: {first['msg']}, got {given}.{_allowed(known, names)}",
            path=("method", method, "hyperparameters", *shown),
        ) from wrong


def read_grader(data: Any, place: tuple[str, ...]) -> spec.Grader:
    """Raises GraderInvalid, with the place in the grader after that in the input."""
    try:
        return spec.read(data)
    except GraderInvalid as invalid:
        invalid.path = (*place, *invalid.path)
        raise


def check_formats(method: str, training: DatasetVersion, validation: DatasetVersion | None) -> None:
    wanted = FORMATS[method]
    for field_name, version in (("trainingData", training), ("validationData", validation)):
        if version is not None and version.format != wanted:
            raise JobInputInvalid(
                f"{version.id} is of the format {version.format}, but the method {method} takes "
                f"the format {wanted}.",
                path=(field_name,),
            )


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _allowed(known: type[Hyperparameters], names: list[str]) -> str:
    """The range of a hyperparameter in words; nothing for those that have none."""
    schema = known.model_json_schema()
    place = schema["properties"].get(names[0], {})
    if len(names) > 1:
        place = schema["$defs"]["EarlyStopping"]["properties"].get(names[1], {})
    for option in place.get("anyOf", [place]):
        low = option.get("minimum", option.get("exclusiveMinimum"))
        if low is not None:
            high = f"to {option['maximum']}" if "maximum" in option else "on"
            auto = '"auto", or ' if "anyOf" in place else ""
            return f" Allowed: {auto}a number from {low} {high}."
    return ""
