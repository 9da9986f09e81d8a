"""The work for the partner, and what its people may do about it."""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from partners import bringing_back, jobs, removals, wishes, workboard
from partners.access import PartnerRequest, needs, partner_required
from partners.powers import Power
from partners.presence import freshly_signed_in
from partners.standing import current_token, standing

DONE = {
    "run": "It begins as soon as a worker is free.",
    "pause": "It is paused. A run under way stops as soon as what it read is kept.",
    "resume": "It goes on from where it was.",
    "cancel": "The run is cancelled. What it has written stays.",
    "release": "It tries again as soon as a worker is free.",
}
UNCHANGED = "Nothing was changed: it is not as it was when you opened this page."


@require_safe
@partner_required
@needs(Power.CUSTOMERS)
def job_list(request: PartnerRequest) -> HttpResponse:
    """Each kind of work in words: how far it is, who acts, when it comes again, and what was done lately."""
    stands = standing(request.partner, current_token(request.partner))
    context = {
        "partner": request.partner,
        "standing": stands,
        "board": workboard.board(request.member, stands),
        "may_act": request.member.may(Power.JOBS),
        "may_choose": request.member.may(Power.CONSENT),
    }
    return render(request, "partners/jobs.html", context)


@require_POST
@partner_required
@needs(Power.JOBS)
def job_act(request: PartnerRequest, kind: str) -> HttpResponse:
    """Run, pause, resume, cancel or release one kind of work."""
    what = request.POST.get("act", "")
    if what not in workboard.ACTS or not request.partner.jobs.filter(kind=kind).exists():
        raise Http404
    if workboard.act(request.partner, kind, what, by=request.user.as_actor()):
        messages.success(request, DONE[what])
    else:
        messages.warning(request, UNCHANGED)
    return redirect("jobs")


@require_POST
@partner_required
@needs(Power.JOBS)
@freshly_signed_in("say that a list is right as Microsoft gives it", back="jobs")
def accept_removals(request: PartnerRequest, kind: str) -> HttpResponse:
    """Say of rows that we held because so many are missing, or so many new, that it is as Microsoft lists them."""
    if not request.member.sees_every_customer:  # how many, and which, is not theirs to judge
        raise Http404
    if removals.accept(request.partner, kind, by=request.user.as_actor()):
        messages.success(request, "They are taken away after the next complete reading, and kept for 30 days.")
    elif removals.accept_strangers(request.partner, kind, by=request.user.as_actor()):
        messages.success(request, "The next complete reading takes the list as it is.")
    else:
        messages.warning(request, UNCHANGED)
    return redirect("jobs")


@require_safe
@partner_required
@needs(Power.JOBS)
def removed(request: PartnerRequest, kind: str) -> HttpResponse:
    """What whole lists took away in the last month, to bring back."""
    _check_removals_are_theirs(request, kind)
    found = list(bringing_back.removals(request.partner, kind)[: bringing_back.SHOWN + 1])
    context = {
        "kind": jobs.kind_named(kind),
        "removals": found[: bringing_back.SHOWN],
        "at_most": bringing_back.SHOWN if len(found) > bringing_back.SHOWN else 0,
        "chosen": next((run.pk for run in found if run.brought_back_at is None), None),
        "days": bringing_back.FOR.days,
        "standing": standing(request.partner, current_token(request.partner)),
    }
    return render(request, "partners/removed.html", context)


@require_POST
@partner_required
@needs(Power.JOBS)
def bring_back(request: PartnerRequest, kind: str) -> HttpResponse:
    """Undo what one whole list took away."""
    _check_removals_are_theirs(request, kind)
    wanted = request.POST.get("run", "")
    if not wanted:
        messages.warning(request, "Nothing was changed: choose first what is to be brought back.")
        return redirect("removed", kind)
    if not (wanted.isascii() and wanted.isdigit() and len(wanted) < 19):
        raise Http404
    run = get_object_or_404(request.partner.runs.filter(job__kind=kind).select_related("job"), pk=int(wanted))
    try:
        done = bringing_back.bring_back(run, by=request.user.as_actor())
    except bringing_back.NotNow as why:
        messages.warning(request, str(why))
        return redirect("removed", kind)
    messages.success(request, done.words)
    return redirect("removed", kind) if done.is_more else redirect("jobs")


def _check_removals_are_theirs(request: PartnerRequest, kind: str) -> None:
    """How many are gone is not for who may see some customers only."""
    is_theirs = request.member.sees_every_customer and bringing_back.is_offered(kind)
    if not is_theirs or not request.partner.jobs.filter(kind=kind).exists():
        raise Http404


@require_POST
@partner_required
@needs(Power.CONSENT)
@freshly_signed_in("choose what is read", back="jobs")
def choose_kind(request: PartnerRequest, kind: str) -> HttpResponse:
    """Have something read that takes an owner's yes, or read it no more and erase it."""
    choices = {"yes": wishes.ask_for, "no": wishes.end}
    choice = choices.get(request.POST.get("wanted", ""))
    if choice is None or kind not in {one.name for one in wishes.kinds()}:
        raise Http404
    title = jobs.kind_named(kind).title
    if not choice(request.partner, kind, by=request.user.as_actor()):
        messages.warning(request, UNCHANGED)
    elif choice is wishes.end:
        messages.success(request, f"{title}: no longer read, and erased here.")
    else:
        messages.success(request, f"{title}: read from now on.")
    return redirect("jobs")
