"""What every test runs with: a cache folder of its own, so that nothing is read from or left in the user's, and no deadline."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

os.environ.pop("COLUMNS", None)  # a test process of pytest-xdist has it, and tables would be fitted to it

settings.register_profile("no deadline", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("no deadline")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded images and compiled Brian2 programs go to a temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSESPIKE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
