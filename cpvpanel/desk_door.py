"""
The desk's door: password, then second factor; for whoever has none yet, enrolling one is all there is.

Between the two nobody is signed in. The session only remembers, for ten minutes, whose password was right.
"""

from __future__ import annotations

import time
from typing import Any, cast

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth import login, logout
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.forms import SetPasswordForm
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.crypto import constant_time_compare
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters

from cpvpanel import counting, qr
from partners import presence, staff
from partners import second_factor as factors
from partners.desk_roles import acts_of
from partners.models import User
from partners.sign_in_backends import PEOPLE

KEY = "desk_door"
WITHIN = 10 * 60  # seconds from the password to the second factor
NOT_RIGHT = (
    "That code does not count: it is wrong, was used already, or came too soon after a wrong one. "
    "Wait for the next one, and enter it then."
)


class PasswordForm(AdminAuthenticationForm):
    def clean(self) -> dict[str, Any]:
        name, word = self.cleaned_data.get("username"), self.cleaned_data.get("password")
        if name and word and counting.guessed_too_often(cast(HttpRequest, self.request), name):
            User().set_password(word)  # it takes as long as looking: the time tells nobody that this is a lock
            raise self.get_invalid_login_error()
        return super().clean()

    def confirm_login_allowed(self, user: Any) -> None:
        """Whoever has no role here hears what somebody hears whose password is wrong."""
        if not acts_of(user):
            raise self.get_invalid_login_error()

    def get_invalid_login_error(self) -> ValidationError:
        text = "This does not open the desk. After five wrong tries wait a quarter of an hour; an admin can help."
        return ValidationError(text, code="invalid_login")


class CodeForm(forms.Form):
    code = forms.CharField(
        max_length=40,
        help_text="Six digits from your authenticator app, or one of your recovery codes.",
        widget=forms.TextInput(attrs={"autocomplete": "one-time-code", "autofocus": True, "spellcheck": "false"}),
    )


class EnrolForm(CodeForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["code"].help_text = "The six digits that the app shows now."


def page(request: HttpRequest, name: str, title: str, **context: Any) -> HttpResponse:
    """One of the desk's own pages."""
    known = admin.site.each_context(request) | {"title": title, **context}
    return TemplateResponse(request, f"admin/desk/{name}.html", known)


# --- Password -------------------------------------------------------------------------------------------------------
@sensitive_post_parameters()
def password(request: HttpRequest) -> HttpResponse:
    """Ask for name and password; what is right leads to the second factor, and not in."""
    if admin.site.has_permission(request) and request.method == "GET":
        return redirect("admin:index")
    form = PasswordForm(request, data=request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        return remember(request, form.get_user(), then=request.POST.get("next", ""))
    known = admin.site.each_context(request) | {
        "title": "Sign in", "form": form, "app_path": request.get_full_path(),
        "next": request.GET.get("next", "") or request.POST.get("next", ""), "by_microsoft": settings.CPV_STAFF_ENTRA,
    }  # fmt: skip
    return TemplateResponse(request, "admin/login.html", known)


def remember(request: HttpRequest, user: User, *, then: str = "") -> HttpResponse:
    """Half of the way in is done: on to the other half, in a session of its own."""
    if request.user.is_authenticated:
        logout(request)
    request.session.cycle_key()
    safe = url_has_allowed_host_and_scheme(then, {request.get_host()}, require_https=request.is_secure())
    request.session[KEY] = {
        "user": user.pk, "hash": user.get_session_auth_hash(), "at": time.time(), "next": then if safe else "",
        "seed": factors.new_seed(),
    }  # fmt: skip
    return redirect("admin:enrol" if must_enrol(user) else "admin:second_factor")


def half_way(request: HttpRequest) -> User | None:
    """Whose password was right a moment ago, and still is."""
    known = request.session.get(KEY)
    if not known or not 0 <= time.time() - known["at"] <= WITHIN:
        return None
    user = User.objects.filter(pk=known["user"]).first()
    is_same = user is not None and constant_time_compare(known["hash"], user.get_session_auth_hash())
    return user if user and is_same and acts_of(user) else None


def at_the_desk(request: HttpRequest) -> User | None:
    """Who is in, with both factors."""
    return request.user if admin.site.has_permission(request) and isinstance(request.user, User) else None


def must_enrol(user: User) -> bool:
    return not (factors.is_enrolled(user) or user.is_for_emergencies)


def let_in(request: HttpRequest, user: User, device: Any) -> str:
    """Sign somebody in who has shown both; the address to go on to."""
    known = request.session.pop(KEY)
    user.otp_device = device  # type: ignore[attr-defined] # django-otp keeps it in the session from here on
    login(request, user, backend=PEOPLE)
    _note_proof(request, device)
    staff.note_sign_in(user=user, device=device)
    return known["next"] or reverse("admin:index")


def shown_anew(request: HttpRequest, device: Any) -> str:
    """Note that it is really whoever is in; the address to go on to."""
    back = began_anew(request)
    _note_proof(request, device)
    staff.note_confirmed(user=device.user, device=device)
    return back


def began_anew(request: HttpRequest) -> str:
    """A new key for the session of somebody who proved themselves once more; the page that they were on."""
    wanted = presence.wanted(request.session)
    request.session.pop(presence.WANTED, None)
    request.session.cycle_key()
    if "doing" in wanted:
        messages.info(request, f"You showed that it is you. Nothing was done yet; now it can be: {wanted['doing']}.")
    return wanted.get("back") or reverse("admin:index")


def _note_proof(request: HttpRequest, device: Any) -> None:
    presence.prove(request.session, mfa={"source": staff.kind_of(device)}, at=int(time.time()))


# --- Second factor --------------------------------------------------------------------------------------------------
@never_cache
@login_not_required
@sensitive_post_parameters()
def second_factor(request: HttpRequest) -> HttpResponse:
    """Ask for a code; the right one lets in."""
    user = half_way(request)
    if user is None:
        return redirect("admin:login")
    if must_enrol(user):
        return redirect("admin:enrol")
    form = CodeForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        device = factors.prove(user, form.cleaned_data["code"])
        if device is not None:
            return redirect(let_in(request, user, device))
        form.add_error("code", NOT_RIGHT)
    return page(request, "second_factor", "Second factor", form=form, has_passkey=factors.has_passkey(user))


@sensitive_post_parameters()
def again(request: HttpRequest) -> HttpResponse:
    """Ask whoever is in for a factor once more, before what a stranger at their screen must not do."""
    user = cast(User, request.user)
    if user.is_from_entra:
        return redirect("admin:microsoft")
    form = CodeForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        device = factors.prove(user, form.cleaned_data["code"])
        if device is not None:
            return redirect(shown_anew(request, device))
        form.add_error("code", NOT_RIGHT)
    wanted = presence.wanted(request.session)
    return page(
        request, "again", "Show that it is you", form=form, has_passkey=factors.has_passkey(user),
        doing=wanted.get("doing", ""), back=wanted.get("back") or reverse("admin:index"),
    )  # fmt: skip


@never_cache
@login_not_required
@sensitive_post_parameters()
def enrol(request: HttpRequest) -> HttpResponse:
    """The first second factor: an app shows that it makes the right codes, and its owner is in."""
    user = half_way(request)
    if user is None:
        return redirect("admin:login")
    if not must_enrol(user):
        return redirect("admin:second_factor")
    seed = request.session[KEY]["seed"]
    form = EnrolForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            device = factors.enrol_app(
                user=user, seed=seed, code=form.cleaned_data["code"], name="Authenticator app", is_first=True
            )
        except factors.Refused:
            return redirect("admin:login")
        if device is not None:
            codes = factors.new_recovery_codes(user)
            then = let_in(request, user, device)
            return page(request, "codes", "Recovery codes", codes=codes, then=then)
        form.add_error("code", "That is not what this app should show now. Is the clock of your telephone right?")
    return page(
        request, "enrol", "Enrol a second factor", form=form, letters=factors.as_letters(seed),
        qr=qr.image(factors.address_for_app(user, seed)),
    )  # fmt: skip


# --- The link of whoever was appointed ------------------------------------------------------------------------------
@never_cache
@login_not_required
@sensitive_post_parameters()
def welcome(request: HttpRequest, uid: str, token: str) -> HttpResponse:
    """Choose a password, once; it leads to enrolling."""
    user = staff.invited(uid, token)
    if user is None:
        answer = page(request, "welcome_over", "This link is over")
        answer.status_code = 410
        return answer
    form = SetPasswordForm(user, request.POST or None)
    if request.method == "POST" and form.is_valid():
        form.save()
        return remember(request, user)
    hours = settings.PASSWORD_RESET_TIMEOUT // 3600
    return page(request, "welcome", f"Welcome, {user.username}", form=form, hours=hours)
