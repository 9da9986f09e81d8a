"""Who the partners are, who may see them, the jobs done for them, and the mirror of their customers."""

from partners.models.changes import Change
from partners.models.desk import MAY, Act
from partners.models.estate import CustomerUser, Relationship, SubscribedSku, Subscription, UnprovenPrincipal
from partners.models.grants import AccessGrant
from partners.models.lists import ListPage, ListRefusal, ListState
from partners.models.mirror import ChosenCustomer, Customer, CustomerQuerySet, Lookup
from partners.models.pacing import Pace, Service
from partners.models.people import ACCESS_DAYS, CLOUDS, Member, Partner, User
from partners.models.staff import LIFT_WITHIN, Appointment, LiftRequest
from partners.models.work import LEASE, Job, Pulse, Run

__all__ = [
    "ACCESS_DAYS",
    "CLOUDS",
    "LEASE",
    "LIFT_WITHIN",
    "MAY",
    "AccessGrant",
    "Act",
    "Appointment",
    "Change",
    "ChosenCustomer",
    "Customer",
    "CustomerQuerySet",
    "CustomerUser",
    "Job",
    "LiftRequest",
    "ListPage",
    "ListRefusal",
    "ListState",
    "Lookup",
    "Member",
    "Pace",
    "Partner",
    "Pulse",
    "Relationship",
    "Run",
    "Service",
    "SubscribedSku",
    "Subscription",
    "UnprovenPrincipal",
    "User",
]
