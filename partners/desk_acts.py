"""What is done at the desk: a page says what will happen and asks why, a POST does it, a role may."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.views.decorators.debug import sensitive_post_parameters

from partners import presence
from partners.desk_roles import Act, may
from partners.models import User

# What a session that somebody else got hold of must not do. LIFT_ALL takes a code by itself.
NEEDS_A_FRESH_FACTOR = frozenset({Act.ACCEPT, Act.SEND_LINK, Act.STOP, Act.ROTATE, Act.STAFF})


class Reason(forms.Form):
    reason = forms.CharField(
        max_length=200, help_text="The audit keeps it.", error_messages={"required": "Please say why."}
    )


class PartnersReason(Reason):
    """Where the line of the audit is a partner's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["reason"].help_text = "The partner and an auditor read it."


class NotDone(Exception):
    """The act was refused; the text says why."""


@dataclass(frozen=True)
class Shown:
    """What came of an act and is shown once, such as a link."""

    text: str
    link: str


@dataclass(frozen=True)
class Warned:
    """What came of an act where somebody has to do something about it."""

    text: str


@dataclass(frozen=True)
class Page:
    """An act as its page tells it; `back` is where it leads to afterwards."""

    act: Act
    title: str
    what: Sequence[str]
    back: str
    form: type[forms.Form] = Reason
    initial: dict[str, Any] = field(default_factory=dict)


Doer = Callable[[User, dict[str, Any]], str | Shown | Warned]


@sensitive_post_parameters()
def confirmed(request: HttpRequest, page: Page, do: Doer) -> HttpResponse:
    """
    Ask on GET, do on POST; whoever may not gets 403 for either, whoever showed no factor lately does so first.

    `do` gets the person and the form's fields, and returns what to say; NotDone brings the form back with its text.
    """
    user = request.user
    if not isinstance(user, User) or not may(user, page.act):
        raise PermissionDenied
    if page.act in NEEDS_A_FRESH_FACTOR and not presence.is_fresh(request.session):
        return presence.ask_anew(request, doing=page.title, back=request.path)
    form = page.form(request.POST or None, initial=page.initial)
    context = admin.site.each_context(request) | {"title": page.title, "what": page.what, "back": page.back}
    if request.method == "POST" and form.is_valid():
        try:
            done = do(user, form.cleaned_data)
        except NotDone as why:
            form.add_error(None, str(why))
            form.data = request.POST.dict() | page.initial  # the page that comes back shows what is now
        else:
            if isinstance(done, Shown):
                return TemplateResponse(request, "admin/desk/shown.html", context | {"shown": done})
            if isinstance(done, Warned):
                messages.warning(request, done.text)
            else:
                messages.success(request, done)
            return redirect(page.back)
    return TemplateResponse(request, "admin/desk/act.html", context | {"form": form})
