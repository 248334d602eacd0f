"""The run that predicts, follows and is exported is that of the tests of `run`."""

from tests.run.conftest import _algorithms_as_before, _blank_figures, finished  # noqa: F401
