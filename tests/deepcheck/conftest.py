"""The fixture that runs a test on every device."""

from collections.abc import Iterator

import pytest
import torch

from tests.deepcheck.devices import DEVICES, on


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    with on(request.param) as there:
        yield there
