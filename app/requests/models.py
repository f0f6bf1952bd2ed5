"""Checks the JSON that `POST /score` and the query of `POST /batches` hold."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from contract.grammar import schema_rules
from contract.grammar.invalid import conflict
from contract.grammar.schema_rules import SCORED_FIELDS
from contract.grammar.text_request import TEXT_OPTIONS, OutputNames, TextRequest, TopK


class ScoreBody(TextRequest):
    """What `POST /score` takes: one text, or several as `items`."""

    model_config = ConfigDict(json_schema_extra=schema_rules.of_texts(TEXT_OPTIONS))

    items: list[TextRequest] | None = Field(
        None,
        min_length=1,
        description="Several texts in one job, each with its own result or error.",
    )
    deadline_s: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Seconds from now after which the job is not begun any more.",
    )
    priority: Literal["interactive", "bulk"] | None = Field(
        None, description="Bulk jobs run when no interactive one waits, and never starve."
    )

    def _check_scored(self, given: list[str]) -> None:
        if len(given) + (self.items is not None) != 1:
            raise conflict(f"give exactly one of {', '.join(SCORED_FIELDS)}, items")
        for name in TEXT_OPTIONS:
            if self.items is not None and getattr(self, name) is not None:
                raise conflict(f"with items, {name} belongs into each item")


class BatchOptions(BaseModel):
    """What the query of `POST /batches` may say: how to take lines, and what they leave out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    on_error: Literal["fail", "skip"] = Field(
        "fail",
        description=(
            "`fail`: one bad line refuses all; `skip`: it becomes a result with its error. "
            "An array is always taken or refused as a whole."
        ),
    )
    outputs: OutputNames | None = None
    top_k: TopK | None = None
    deadline_s: float | None = Field(None, gt=0, allow_inf_nan=False)
