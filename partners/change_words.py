"""What a page says about a change that did not come about: why, who acts and what they do next."""

from __future__ import annotations

from dataclasses import dataclass

from partners.partnercenter import AccessRefused, CallRejected, MfaMissing, NotThere
from tokens.challenges import ChallengedAgain
from tokens.entra import BlockedByPartner, ConsentRequired, NoSuchTenant
from tokens.errors import Failure
from tokens.gate import Stopped


@dataclass(frozen=True)
class Words:
    title: str
    why: str
    owner: str  # partner, support or nobody
    action: str


REASONS = {
    # Before anything was sent
    "changed": Words(
        "It changed meanwhile", "Somebody changed this subscription after you looked at it, so yours was not made.",
        "partner", "Look again, and decide by how it stands now.",
    ),
    "stopped": Words(
        "Stopped", "No call leaves for your organisation now, so nothing was sent, and nothing will be later.",
        "partner", "Your home page says what to do. Then begin anew.",
    ),
    "too_late": Words(
        "Too late", "It could not be sent within ten minutes of your yes, so it never will be.", "partner",
        "Look again, and confirm again if you still want it.",
    ),
    "taken_back": Words(
        "Taken back", "It was taken back before it was sent.", "nobody", "Nothing was changed by it.",
    ),
    "not_yours": Words(
        "Whoever confirmed it may no longer", "Their role or their customers changed before it was sent.", "partner",
        "Somebody who may change subscriptions begins anew.",
    ),
    "later": Words(
        "Microsoft does not answer now", "Partner Center or the sign-in service is down, or asks us to wait.",
        "nobody", "Begin anew later.",
    ),
    # Microsoft's own no
    "range": Words(
        "Microsoft does not allow that number", "It is below the least or above the most for this product.", "partner",
        "Choose another number of licences.",
    ),
    "fewer": Words(
        "Too late for fewer", "Microsoft allows fewer licences only within 168 hours (seven days) of buying or renewing"
        " them.", "partner", "Have it end or renew with fewer at the end of the term.",
    ),
    "inactive": Words(
        "The subscription is not active", "Microsoft changes the number of active subscriptions only.", "partner",
        "Reactivate it in Partner Center, then begin anew.",
    ),
    "renewal": Words(
        "It cannot renew by itself", "Microsoft does not offer automatic renewal for this subscription.", "nobody",
        "There is nothing to do here.",
    ),
    "fixed": Words(
        "This cannot be changed here", "Microsoft does not let this property of this subscription be changed.",
        "partner", "Look at it in Partner Center.",
    ),
    "pending": Words(
        "Microsoft is busy with an earlier change", "Another operation on this subscription or order has not ended.",
        "nobody", "Microsoft asks to try again after 24 hours.",
    ),
    "frozen": Words(
        "No more changes", "Microsoft takes no further updates of this subscription, or there were too many.",
        "partner", "Look at it in Partner Center, or ask Microsoft's support.",
    ),
    "credit": Words(
        "The credit limit is reached", "Microsoft refuses because of your organisation's credit.", "partner",
        "See the billing pages of Partner Center.",
    ),
    "agreement": Words(
        "An agreement is missing", "The customer agreement or the partner agreement has not been accepted.", "partner",
        "Confirm it in Partner Center, then begin anew.",
    ),
    "review": Words(
        "Microsoft is looking at this customer", "The customer is under review, not approved, or locked.", "partner",
        "Partner Center says what is missing.",
    ),
    "role": Words(
        "The account may not do this", "The account that is connected lacks the role to change subscriptions.",
        "partner", "Make it an admin agent or a sales agent in Partner Center, then begin anew.",
    ),
    "policy": Words(
        "A policy blocks this", "A sign-in policy does not let the account that is connected do this.", "partner",
        "Ask the administrator to exempt the service account, then begin anew.",
    ),
    "gone": Words(
        "Partner Center does not know it", "The customer or the subscription is no longer there.", "partner",
        "Look the customer up in Partner Center.",
    ),
    "rejected": Words(
        "Microsoft refuses", "Partner Center does not accept the change.", "support", "Give support the reference.",
    ),
    # After it was sent
    "lost": Words(
        "It did not arrive", "No answer came, and as Microsoft tells, nothing was changed.", "partner",
        "Begin anew if you still want it.",
    ),
    "overtaken": Words(
        "Somebody else changed it, too", "No answer came to ours, and by now it stands neither as before nor as you"
        " wanted. We cannot say whether yours took effect in between.", "partner",
        "Look again, and decide by how it stands now.",
    ),
    "unseen": Words(
        "We cannot say what became of it", "It was sent, and for a day we could not see whether it took effect.",
        "partner", "Look at the subscription in Partner Center.",
    ),
    "ours": Words("It went wrong here", "This is our own mistake.", "support", "Give support the reference."),
}  # fmt: skip

CODES = {
    "2002": "range", "800066": "range", "800067": "range", "800068": "range", "2055": "changed", "800036": "changed",
    "900117": "fewer", "800090": "fewer", "800091": "inactive", "800093": "renewal",
    "800095": "fixed", "800096": "fixed", "800097": "fixed",
    "900278": "pending", "800060": "pending", "800014": "pending", "http_409": "pending",
    "900279": "frozen", "900311": "frozen", "900121": "credit", "800023": "credit", "800025": "credit",
    "13605": "agreement", "900123": "agreement", "900124": "agreement",
    "800073": "review", "800074": "review", "800075": "review", "900416": "review", "900309": "policy",
}  # fmt: skip
"""Microsoft's numbers; https://learn.microsoft.com/partner-center/developer/error-codes"""


def reason_of(failure: Failure) -> str:
    """Which of REASONS a refusal of Microsoft's, or of the gate, is."""
    match failure:
        case MfaMissing() | Stopped() | ConsentRequired() | BlockedByPartner() | NoSuchTenant():
            return "stopped"
        case ChallengedAgain():
            return "policy"
        case NotThere():
            return "gone"
        case AccessRefused():
            return CODES.get(failure.code, "role")
        case CallRejected():
            return CODES.get(failure.code, "rejected")
    return "ours"
