"""The assembly: settings, addresses, the worker and its clock. It holds no rule of its own."""

import gc

# Until the application stands (cpvpanel/apps.py): what is loaded is no garbage, and would be looked through many times.
gc.disable()

from cpvpanel.celery import app as celery_app  # noqa: E402

__all__ = ["celery_app"]
