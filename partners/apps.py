import sys

from django.apps import AppConfig
from django.conf import settings

TURN = 0.001  # seconds: who waits for an answer gets its turn so soon; Python's own 5 ms add up where threads are many


class PartnersConfig(AppConfig):
    name = "partners"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        if settings.CPV_ROLE == "worker":
            sys.setswitchinterval(TURN)
