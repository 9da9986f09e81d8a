from tests.live import live, stack

__all__ = ["live", "stack"]
