from django.apps import AppConfig


class CpvPanelConfig(AppConfig):
    name = "cpvpanel"
    default_auto_field = "django.db.models.BigAutoField"
