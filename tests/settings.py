"""The product's own settings in a small world: everything in this process, no socket anywhere."""

import os
import tempfile
from pathlib import Path

os.environ["CPV_ENV_FILE"] = ""
os.environ.update({"DEBUG": "true", "CPV_ROLE": "worker", "CPV_BASE_URL": "http://testserver"})
os.environ.setdefault("DATABASE_URL", "sqlite://:memory:")
os.environ["CPV_SANDBOX_URL"] = "http://localhost:8400"

from cpvpanel.settings import *  # noqa: F403

VAR_DIR = Path(tempfile.mkdtemp(prefix="cpv-tests-"))
DEBUG = False  # pages and errors as users see them
CPV_SANDBOX_ADAPTER = "tests.pretend.adapter"
CPV_GUARD_TRANSACTIONS = True
CELERY_BROKER_URL = "filequeue://"
CELERY_BROKER_TRANSPORT_OPTIONS = {"data_folder": str(VAR_DIR / "messages")}
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
INSTALLED_APPS = [*INSTALLED_APPS, "tests.emptying"]  # noqa: F405
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = True
if DATABASES["default"]["ENGINE"].endswith("postgresql"):  # noqa: F405
    DATABASES["default"]["TEST"] = {"TEMPLATE": os.environ.get("CPV_BENCH_TEMPLATE")}  # noqa: F405 - migrated already
