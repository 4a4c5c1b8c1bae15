"""The browser that tests of pages drive."""

import pytest
from browser import require_browser, start_browser


@pytest.fixture(scope="module")
def driver():
    require_browser()
    driver = start_browser()
    yield driver
    driver.quit()
