"""The desk: Django admin for the vendor's support, read-only."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import AdminSite
from django.contrib.admin.apps import AdminConfig
from django.contrib.auth.decorators import login_not_required


class Desk(AdminSite):
    """Admin checks who enters by itself; the portal's sign-in would send support to Microsoft."""

    site_header = "CPV Panel desk"
    site_title = "CPV Panel desk"
    index_title = "Partners and work"
    enable_nav_sidebar = False

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        return login_not_required(super().admin_view(view, cacheable))


class DeskConfig(AdminConfig):
    default_site = "cpvpanel.desk.Desk"
