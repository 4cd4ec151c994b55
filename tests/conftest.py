"""What holds for all tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from hypothesis import settings

# A test must not fail because the machine is busy.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def _no_users_cache(tmp_path_factory) -> Iterator[None]:
    """Nothing goes to the cache of whoever runs the tests, and no test gets another's vectors."""
    folder = tmp_path_factory.mktemp("users-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORETASTE_CACHE", "off")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield
    shutil.rmtree(folder)  # a converted language model is half a gigabyte
