"""Every document the CLI sends is valid by the schema."""

from pathlib import Path

import pytest
from graphql import build_schema, parse, validate

from app.cli import documents
from app.client import client

SCHEMA = build_schema((Path(__file__).parents[2] / "schema.graphql").read_text())
DOCUMENTS = {
    **{name: text for name, text in vars(documents).items() if name.isupper() and name[0] != "_"},
    **{name: text for name, text in vars(client).items() if name[1:].isupper()},
    **{verb: documents.job_action(verb) for verb in ("pause", "resume", "cancel", "restart")},
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_we_ask_is_in_the_schema(name: str) -> None:
    assert validate(SCHEMA, parse(DOCUMENTS[name])) == []
