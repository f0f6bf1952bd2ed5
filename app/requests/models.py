"""Defines the models that check the body of `POST /score` and the query of `POST /batches`."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from contract.grammar import schema_rules
from contract.grammar.model_names import ModelName
from contract.grammar.schema_rules import SCORED_FIELDS
from contract.grammar.text_request import TEXT_OPTIONS, OutputNames, TextRequest, TopK
from contract.grammar.validation import conflict

ColumnName = Annotated[str | None, Field(min_length=1, max_length=128)]


class ScoreBody(TextRequest):
    """The body of `POST /score`: one text, or several as `items`."""

    model_config = ConfigDict(json_schema_extra=schema_rules.of_texts(TEXT_OPTIONS))

    items: list[TextRequest] | None = Field(
        None,
        min_length=1,
        description="Several texts in one job. Each gets its own result or error.",
    )
    deadline_s: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Seconds from now after which the job is no longer started.",
    )
    priority: Literal["interactive", "bulk"] | None = Field(
        None,
        description="Bulk jobs run after interactive ones, but always get a share of the capacity.",
    )
    model: ModelName = None

    def _check_scored(self, given: list[str]) -> None:
        if len(given) + (self.items is not None) != 1:
            raise conflict(f"give exactly one of {', '.join(SCORED_FIELDS)}, items")
        for name in TEXT_OPTIONS:
            if self.items is not None and getattr(self, name) is not None:
                raise conflict(f"with items, set {name} in each item")


class BatchOptions(BaseModel):
    """Options in the query of `POST /batches`; they hold for all lines."""

    model_config = ConfigDict(extra="forbid", strict=True)

    on_error: Literal["fail", "skip"] = Field(
        "fail",
        description=(
            "`fail`: one bad line refuses the whole upload. `skip`: a bad line becomes a result "
            "with its error. An array is always accepted or refused as a whole."
        ),
    )
    text_field: ColumnName = Field(
        None,
        description=(
            "Column of the text, for lines that are rows of a corpus. All columns but this one and "
            "that of the ID are ignored."
        ),
    )
    id_field: ColumnName = Field(
        None,
        description="Column of the ID, which comes back as `custom_id`: a string or an integer.",
    )
    outputs: OutputNames | None = None
    top_k: TopK | None = None
    deadline_s: float | None = Field(None, gt=0, allow_inf_nan=False)
    model: ModelName = None
