"""The assembly: settings, addresses, the worker and its clock. It holds no rule of its own."""

from cpvpanel.celery import app as celery_app

__all__ = ["celery_app"]
