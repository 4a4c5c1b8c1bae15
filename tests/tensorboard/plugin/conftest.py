"""TensorBoard on each of its two readers."""

import contextlib

import pytest
from served_logs import (
    client_of,
    python_provider,
    rust_provider,
)


@pytest.fixture(params=["python", "rust"])
def serve(request):
    with contextlib.ExitStack() as stack:

        def start(logdir, **options):
            if request.param == "python" or options.get("spec"):
                provider = python_provider(logdir, options.get("spec"))
            else:
                provider = stack.enter_context(rust_provider(logdir))
            return client_of(logdir, provider, options.get("logdir_spec", ""))

        yield start
