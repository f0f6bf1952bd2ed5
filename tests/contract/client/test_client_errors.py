"""The client's exceptions are those of the service."""

import pytest

from contract import errors as service
from evascore import errors as client


@pytest.mark.parametrize("code", service.BY_CODE)
def test_every_code_has_the_same_class_in_the_client(code):
    theirs, ours = service.BY_CODE[code], client.BY_CODE[code]
    assert ours.__name__ == theirs.__name__
    assert ours.__base__.__name__ == (
        theirs.__base__.__name__.replace("Exception", "EvascoreError")
    )


def test_client_has_no_code_that_the_service_lacks():
    assert client.BY_CODE.keys() == service.BY_CODE.keys()
