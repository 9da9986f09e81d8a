"""Production's settings in a rehearsal against the bench's own stand-in; the environment comes from `bench.ground`."""

import logging
import os

from cpvpanel.settings import *  # noqa: F403

if os.environ.get("CPV_BENCH_OPEN"):  # to see what the walls cost: with a login that they do not bind
    CPV_WALLS_REQUIRED = False
logging.disable(logging.INFO)  # a run writes lines to stderr, which is a pipe here
