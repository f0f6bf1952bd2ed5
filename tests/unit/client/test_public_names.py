"""The package exports each exception that a client raises, and its manual names each."""

import evascore
from contract.settings import REPOSITORY
from evascore.bulk.files import BulkRefused
from evascore.bulk.run import ModelChanged
from evascore.readers.packages import InputRefused
from tests.error_classes import classes_of_errors

# No method of a client raises these; the command `evascore bulk` does.
OF_A_COMMAND = {BulkRefused, InputRefused, ModelChanged}


def test_every_exception_of_a_client_can_be_imported_from_the_package():
    exported = [getattr(evascore, name) for name in evascore.__all__]
    errors = {
        each
        for each in exported
        if isinstance(each, type) and issubclass(each, evascore.EvascoreError)
    }
    assert errors == set(classes_of_errors()) - OF_A_COMMAND


def test_the_manual_names_every_exception_that_has_no_code_of_the_service():
    manual = (REPOSITORY / "docs" / "client.md").read_text()
    rows = "".join(line for line in manual.splitlines() if line.startswith("| `"))
    own = {kind for kind in classes_of_errors() if not issubclass(kind, evascore.ServiceError)}
    for kind in own - OF_A_COMMAND - {evascore.EvascoreError}:
        assert f"`{kind.__name__}`" in rows
