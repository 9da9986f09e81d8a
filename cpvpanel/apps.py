import gc
from typing import Any

from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_in


def greet(**signal: Any) -> None:
    """Begin the session of whoever signed in; a worker, where nobody does, never loads what that takes."""
    from cpvpanel import counting, sessions

    sessions.start_clocks(**signal)
    counting.note_sign_in(**signal)


class CpvPanelConfig(AppConfig):
    name = "cpvpanel"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from cpvpanel import checks  # noqa: F401 - they register themselves

        user_logged_in.connect(greet, dispatch_uid="cpvpanel")
        gc.freeze()  # what is here stays; looking through it again and again took a third of a sync's time
        gc.enable()  # cpvpanel/__init__.py put it off
