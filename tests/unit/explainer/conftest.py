"""One BLAS thread, as in the explainer's process: threads that fight for few cores cost minutes."""

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True, scope="session")
def one_blas_thread():
    with threadpool_limits(1):
        yield
