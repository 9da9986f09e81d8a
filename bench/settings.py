"""Production's settings in a rehearsal against the bench's own stand-in; the environment comes from `bench.ground`."""

import logging

from cpvpanel.settings import *  # noqa: F403
from cpvpanel.settings import STORAGES

# No `collectstatic` first: pages name static files as they lie in the repository.
STORAGES = {**STORAGES, "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}
logging.disable(logging.INFO)  # a run writes lines to stderr, which is a pipe here
