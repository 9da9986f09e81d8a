"""The desk: Django admin for the vendor's staff, behind two factors of ours, or a sign-in with MFA at Microsoft."""

from __future__ import annotations

from collections.abc import Iterable
from functools import wraps
from typing import Any

from django.conf import settings
from django.contrib.admin import AdminSite
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, URLResolver, path
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache

from cpvpanel import desk_door, desk_factors, desk_microsoft, evidence, passkeys
from partners import presence, second_factor
from partners.desk_roles import Act, acts_of
from partners.leaving import leads_to_microsoft
from tokens import audit
from tokens.tenancy import system_scope

# The names of the addresses that open before both factors were shown; a test holds all others to be closed.
OPEN = frozenset(
    {
        "login", "second_factor", "enrol", "welcome", "passkey_ask", "passkey_prove", "passkey_offer", "passkey_enrol",
        "microsoft", "microsoft_callback",
    }
)  # fmt: skip
ROOMS = ("cpvpanel", "consent", "partners", "tokens")


class Desk(AdminSite):
    """Admin checks who enters by itself; the portal's sign-in would send staff to Microsoft."""

    site_header = "CPV Panel desk"
    site_title = "CPV Panel desk"
    index_title = "Partners and work"
    enable_nav_sidebar = False
    site_url = None  # the portal is closed to staff

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        return login_not_required(across_partners(super().admin_view(view, cacheable)))

    def register(self, model_or_iterable: Any, admin_class: Any = None, **options: Any) -> None:
        """Only what our rooms bring: libraries' pages would change groups, and show seeds of second factors."""
        if admin_class is not None and admin_class.__module__.partition(".")[0] in ROOMS:
            super().register(model_or_iterable, admin_class, **options)

    def has_permission(self, request: HttpRequest) -> bool:
        """A role, and a second factor shown in this very session: a password alone opens nothing."""
        return bool(acts_of(request.user)) and second_factor.was_shown(request)

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        may = {act.value: act in acts_of(request.user) for act in Act} if self.has_permission(request) else {}
        return super().each_context(request) | {"may": may}

    @method_decorator(never_cache)
    @method_decorator(login_not_required)
    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        door = leads_to_microsoft(desk_door.password) if settings.CPV_STAFF_ENTRA else desk_door.password
        return across_partners(door)(request)  # type: ignore[no-any-return]

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """One's own, for whoever showed a factor lately: at a page left open no stranger guesses or changes it."""
        if not presence.is_fresh(request.session):
            return presence.ask_anew(request, doing="Change your password", back=request.path)
        answer = super().password_change(request, extra_context)
        if request.method == "POST" and answer.status_code == 302:
            audit.record("staff.password_changed", actor=request.user.as_actor(), object=request.user)  # type: ignore[union-attr]
        return answer

    def get_urls(self) -> list[URLResolver | URLPattern]:
        own = [
            path("second-factor/", across_partners(desk_door.second_factor), name="second_factor"),
            path("again/", self.admin_view(desk_door.again), name="again"),
            path("enrol/", across_partners(desk_door.enrol), name="enrol"),
            path("microsoft/", across_partners(desk_microsoft.microsoft), name="microsoft"),
            path("microsoft/callback", across_partners(desk_microsoft.callback), name="microsoft_callback"),
            path("welcome/<str:uid>/<str:token>/", across_partners(desk_door.welcome), name="welcome"),
            path("evidence/", self.admin_view(evidence.evidence), name="evidence"),
            path("factors/", self.admin_view(desk_factors.factors), name="factors"),
            path("factors/app/", self.admin_view(desk_factors.add_app), name="add_app"),
            path("factors/codes/", self.admin_view(desk_factors.codes), name="recovery_codes"),
            path("factors/passkey/offer/", across_partners(passkeys.Offer.as_view()), name="passkey_offer"),
            path("factors/passkey/enrol/", across_partners(passkeys.Enrol.as_view()), name="passkey_enrol"),
            path("second-factor/passkey/ask/", across_partners(passkeys.Ask.as_view()), name="passkey_ask"),
            path("second-factor/passkey/prove/", across_partners(passkeys.Prove.as_view()), name="passkey_prove"),
            path("factors/remove/", self.admin_view(desk_factors.remove), name="remove_factor"),
        ]
        # Nothing has a page elsewhere; Django's way there would look up whatever row an address names.
        patterns = [*own, *(line for line in super().get_urls() if getattr(line, "name", "") != "view_on_site")]
        _leave_it_to_the_desk(patterns)
        return patterns


def across_partners(view: Any) -> Any:
    """Staff see what work across partners needs, and never what is mirrored of customers."""

    @wraps(view)
    def opened(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        with system_scope("the desk"):
            answer = view(request, *args, **kwargs)
            if hasattr(answer, "render") and callable(answer.render) and not answer.is_rendered:
                answer.render()  # its lists are read now, or never
            return answer

    return opened


def _leave_it_to_the_desk(patterns: Iterable[URLResolver | URLPattern]) -> None:
    """Django's admin wraps the pages of models once more and loses the mark, so it is set on each that is served."""
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            _leave_it_to_the_desk(pattern.url_patterns)
        elif getattr(pattern.callback, "login_required", True):
            login_not_required(pattern.callback)


def the_same_answer(_request: HttpRequest, answer: HttpResponse, _credentials: Any = None) -> HttpResponse:
    """Too many wrong passwords are answered as one wrong password is: nobody learns which names there are."""
    return answer
