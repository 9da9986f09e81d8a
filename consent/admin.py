"""
Consents and invitations at the desk, to read; and sending a fresh link.

Links, states and bindings are hashes and stay out of sight; so does where a sign-in leads, which may name a customer.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse

from consent import invitations, mails
from consent.models import Consent, ConsentAttempt, Invitation, MemberInvitation, Notice
from partners.desk_acts import NotDone, Page, PartnersReason, Shown, confirmed
from partners.desk_roles import Act
from partners.models import Partner, User
from tokens.long_lists import ReadOnlyAdmin


@admin.register(Consent)
class ConsentAdmin(ReadOnlyAdmin):
    list_display = ("at", "partner", "upn", "role", "terms_version")
    list_select_related = ("partner",)
    finds_of, finds_newest = ("partner",), ("upn",)
    ordering = ("-id",)


@admin.register(Invitation)
class InvitationAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "partner", "email", "expires_at", "used_at", "created_by")
    list_select_related = ("partner",)
    finds_of, finds_newest = ("partner",), ("email",)
    ordering = ("-id",)
    exclude = ("link_hash",)

    def get_urls(self) -> list[URLPattern]:
        own = [path("send/<int:pk>/", self.admin_site.admin_view(send_link), name="send_link")]
        return own + super().get_urls()


class LinkForm(PartnersReason):
    email = forms.EmailField(
        required=False, max_length=254, help_text="We mail it there, too. Empty: you hand it over."
    )
    field_order = ("email", "reason")


def send_link(request: HttpRequest, pk: int) -> HttpResponse:
    """A fresh consent link for a partner."""
    partner = get_object_or_404(Partner.objects.living(), pk=pk)

    def do(user: User, said: dict[str, Any]) -> Shown:
        try:
            invitation, url = invitations.invite_again(
                partner=partner, by=user.as_actor(), email=said["email"], reason=said["reason"]
            )
        except invitations.NoLinkNow as why:
            raise NotDone(str(why)) from why
        until = f"It is for {partner.name}, good until {invitation.expires_at:%Y-%m-%d %H:%M} UTC."
        return Shown(f"{_mailed(invitation, url)} {until}".strip(), url)

    what = [
        f"{partner.name} gets a link to consent with; whoever opens it must sign in to its tenant with the right role.",
        "Where a connection works, it goes on working until an owner has seen what would change and said yes.",
    ]
    back = reverse("admin:partners_partner_change", args=[partner.pk])
    return confirmed(request, Page(Act.SEND_LINK, "Send a fresh link", what, back, LinkForm), do)


def _mailed(invitation: Invitation, url: str) -> str:
    if not invitation.email:
        return ""
    try:
        mails.send(
            "invitation", to=invitation.email, partner=invitation.partner.name, url=url,
            context={"partner": invitation.partner, "invitation": invitation},
        )  # fmt: skip
    except OSError as trouble:
        return f"The mail to {invitation.email} did not leave ({type(trouble).__name__}): hand the link over yourself."
    return f"It is on its way to {invitation.email}."


@admin.register(MemberInvitation)
class MemberInvitationAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "partner", "email", "role", "invited_by_name", "used_at", "revoked_at", "expires_at")
    list_select_related = ("partner",)
    finds_of, finds_newest = ("partner",), ("email",)
    ordering = ("-id",)
    exclude = ("link_hash",)


@admin.register(ConsentAttempt)
class ConsentAttemptAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "kind", "partner", "cloud", "claimed_at", "outcome")
    list_select_related = ("partner",)
    list_filter = ("kind", "outcome")
    ordering = ("-id",)
    exclude = ("state_hash", "browser_hash", "sealed_flow", "next_path")


@admin.register(Notice)
class NoticeAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "partner", "kind", "to", "sent_at", "tries", "dropped_at")
    list_select_related = ("partner",)
    list_filter = ("kind",)
    finds_of, finds_newest = ("partner",), ("to",)
    ordering = ("-id",)
