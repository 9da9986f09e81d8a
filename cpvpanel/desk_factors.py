"""One's own second factors, for somebody who has just shown one: add, remove, new recovery codes."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from cpvpanel import qr
from cpvpanel.desk_door import EnrolForm, page
from partners import presence
from partners import second_factor as given
from partners.models import User

SEED = "desk_new_seed"
NOT_FOR_EMERGENCIES = "The account for emergencies has its codes, and ends within the hour: there is nothing to enrol."


class AppForm(EnrolForm):
    name = forms.CharField(max_length=64, initial="Authenticator app", help_text="So that you know which one it is.")
    field_order = ("name", "code")


def person(request: HttpRequest) -> User:
    return cast(User, request.user)


def factors(request: HttpRequest) -> HttpResponse:
    """What I have."""
    user = person(request)
    return page(
        request, "factors", "Your second factor", devices=given.devices_of(user), codes_left=given.codes_left(user),
        is_for_emergencies=user.is_for_emergencies,
    )  # fmt: skip


@sensitive_post_parameters()
def add_app(request: HttpRequest) -> HttpResponse:
    """Another app or passkey, for whoever has just shown one: a page left open makes none for a stranger."""
    user = person(request)
    if why_none := _why_none(user):
        return _refused(request, why_none)
    if not presence.is_fresh(request.session):
        return presence.ask_anew(request, doing="Add a second factor", back=request.path)
    seed = request.session.setdefault(SEED, given.new_seed())
    form = AppForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        chosen: dict[str, Any] = form.cleaned_data
        try:
            device = given.enrol_app(user=user, seed=seed, is_first=False, **chosen)
        except given.Refused as why:
            return _refused(request, str(why))
        if device is not None:
            del request.session[SEED]
            messages.success(request, f"Enrolled: {device.name}")
            return redirect("admin:factors")
        form.add_error("code", "That is not what this app should show now. Is the clock of your telephone right?")
    return page(
        request, "enrol", "Add a second factor", form=form, letters=given.as_letters(seed),
        qr=qr.image(given.address_for_app(user, seed)),
    )  # fmt: skip


@require_POST
@presence.freshly_signed_in("remove a second factor", back="admin:factors")
def remove(request: HttpRequest) -> HttpResponse:
    """Take one away; the last one stays."""
    user = person(request)
    try:
        name = given.remove(user=user, device_id=request.POST.get("device", ""), by=user.as_actor())
    except given.Refused as why:
        return _refused(request, str(why))
    messages.success(request, f"Removed: {name}")
    return redirect("admin:factors")


@require_POST
@presence.freshly_signed_in("make new recovery codes", back="admin:factors")
def codes(request: HttpRequest) -> HttpResponse:
    """Fresh recovery codes, shown once; the old ones are void."""
    user = person(request)
    if why_none := _why_none(user):
        return _refused(request, why_none)
    return page(request, "codes", "Recovery codes", codes=given.new_recovery_codes(user))


def _why_none(user: User) -> str:
    """Why this person has nothing to enrol; empty when they have."""
    if user.is_from_entra:
        return given.KEPT_AT_MICROSOFT
    return NOT_FOR_EMERGENCIES if user.is_for_emergencies else ""


def _refused(request: HttpRequest, why: str) -> HttpResponse:
    messages.error(request, why)
    return redirect("admin:factors")
