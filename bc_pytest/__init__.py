"""`pytest --bc-report FILE`: every `assert_compatible` of a test run in one report.

A package of its own, as pytest imports its plugins in every run: `bc_core` is imported only where a report is wanted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

    from bc_pytest._gathering import Gathering

ENDINGS = (".html", ".json", ".md")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("backward compatibility").addoption(
        "--bc-report",
        metavar="FILE",
        help="write what every assert_compatible came to, to a file that ends in " + ", ".join(ENDINGS),
    )


def pytest_configure(config: pytest.Config) -> None:
    """Listen where a report is asked for."""
    said = config.getoption("bc_report")
    if said is None:
        return
    path = config.invocation_params.dir / said  # tests may change the folder
    if path.suffix.lower() not in ENDINGS:
        raise pytest.UsageError(f"--bc-report {said}: expected a name that ends in {', '.join(ENDINGS)}")
    config.pluginmanager.register(_Plugin(config, path), "bc-report")


class _Plugin:
    """Workers of pytest-xdist send what they hear with their tests' reports; the process that has no chief writes."""

    def __init__(self, config: pytest.Config, path: Path) -> None:
        from bc_pytest._gathering import Gathering

        chief = getattr(config, "workerinput", None)
        self._writes = chief is None
        self._path, self._written = path, ""
        self._gathering: Gathering = Gathering(None if chief is None else chief["bc_report_folder"])

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["bc_report_folder"] = str(self._gathering.folder)

    @pytest.hookimpl(hookwrapper=True)  # as pytest 7 knows it too
    def pytest_runtest_makereport(self) -> Generator[None, Any, None]:
        outcome = yield
        # As ASCII: what carries it between processes knows plain UTF-8, and names in data may be no such text.
        outcome.get_result().bc_assertions = json.dumps(self._gathering.heard())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self._writes:
            self._gathering.add(report.nodeid, report.outcome, json.loads(getattr(report, "bc_assertions", "[]")))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not self._writes:
            return
        try:
            self._written = self._gathering.write(self._path)
        except OSError as error:
            self._written = f"--bc-report: not written, {error}"
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED  # who asked for it relies on it

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self._written:
            terminalreporter.write_line(self._written)

    def pytest_unconfigure(self) -> None:
        self._gathering.close()
