from django.apps import AppConfig
from django.db.backends.signals import connection_created
from django.db.models.signals import post_migrate


class TokensConfig(AppConfig):
    name = "tokens"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from tokens import checks, rls, tenancy  # noqa: F401 - checks registers them

        connection_created.connect(tenancy.guard_connection, dispatch_uid="tenancy")
        connection_created.connect(rls.refuse_unfit_login, dispatch_uid="logins")
        post_migrate.connect(rls.admit, sender=self, dispatch_uid="rls")
