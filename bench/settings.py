"""Production's settings in a rehearsal against the bench's own stand-in; the environment comes from `bench.ground`."""

import logging

from cpvpanel.settings import *  # noqa: F403

logging.disable(logging.INFO)  # a run writes lines to stderr, which is a pipe here
