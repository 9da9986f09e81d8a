"""Django's own `migrate`, which works as the owner of all tables."""

from typing import Any

from django.core.management.commands import migrate

from tokens.tenancy import owner_scope


class Command(migrate.Command):
    def handle(self, *args: Any, **options: Any) -> None:
        with owner_scope():
            super().handle(*args, **options)
