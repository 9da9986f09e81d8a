"""Our mails: plain words as in the portal, one link, text and simple HTML with nothing to load."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parseaddr
from typing import Any

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string

from tokens import outside

SUBJECTS = {
    "invitation": "Connect {partner} to CPV Panel",
    "member": "Join {partner} in CPV Panel",
    "broken": "{partner}: the connection to Microsoft needs you",
    "ending": "{partner}: the access you granted ends soon",
    "asked": "{partner}: the vendor's staff ask to look at your pages",
    "lent": "{partner}: the vendor's staff look at your pages",
    "recovered": "{partner}: the connection to Microsoft works again",
}


def send(kind: str, *, to: str, partner: str, url: str, context: Mapping[str, Any], message_id: str = "") -> None:
    """
    Send one mail to one person; a second try with the same `message_id` is recognisable as such.

    :raises OSError: it did not leave (smtplib's errors are OSErrors)
    """
    if settings.CPV_GUARD_TRANSACTIONS:
        outside.refuse_inside_transactions()
    known = {**context, "partner_name": partner, "url": url, "vendor_name": settings.CPV_VENDOR_NAME}
    subject = " ".join(SUBJECTS[kind].format(partner=partner).split())  # a name may hold a line break
    domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2] or "localhost"
    mail = EmailMultiAlternatives(
        subject,
        render_to_string(f"consent/mail/{kind}.txt", known),
        to=[to],
        headers={"Auto-Submitted": "auto-generated"}
        | ({"Message-ID": f"<{message_id}@{domain}>"} if message_id else {}),
    )
    mail.attach_alternative(render_to_string(f"consent/mail/{kind}.html", known), "text/html")
    mail.send()
