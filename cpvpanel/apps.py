import gc

from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_in


class CpvPanelConfig(AppConfig):
    name = "cpvpanel"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from cpvpanel import checks, counting, sessions  # noqa: F401 - the checks register themselves

        user_logged_in.connect(sessions.start_clocks, dispatch_uid="cpvpanel.sessions")
        user_logged_in.connect(counting.note_sign_in, dispatch_uid="cpvpanel.counting")
        gc.freeze()  # what is here stays; looking through it again and again took a third of a sync's time
        gc.enable()  # cpvpanel/__init__.py put it off
