from tests.live import live, pytest_runtest_teardown, stack

__all__ = ["live", "pytest_runtest_teardown", "stack"]
