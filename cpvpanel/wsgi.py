"""What gunicorn serves; it does not start on settings that are wrong or unsafe."""

import os

from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.wsgi import get_wsgi_application

from cpvpanel.checks import serious

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "cpvpanel.settings")
application = get_wsgi_application()

if wrong := serious(run_checks()):
    raise ImproperlyConfigured(wrong)
