import uuid

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

import partners.models.changes
from tokens.rls import EnableRLS, SamePartner


class Migration(migrations.Migration):
    dependencies = [
        ("partners", "0015_lanes"),
    ]

    operations = [
        migrations.CreateModel(
            name="Change",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("asked_by", models.CharField(blank=True, max_length=320)),
                ("subscription_id", models.CharField(max_length=64)),
                ("subscription_key", models.CharField(max_length=64)),
                ("title", models.CharField(blank=True, max_length=400)),
                ("asked_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("read_at", models.DateTimeField(blank=True, null=True)),
                ("before", models.JSONField(blank=True, default=dict)),
                (
                    "what",
                    models.CharField(
                        blank=True,
                        choices=[("quantity", "Number of licences"), ("auto_renew", "Automatic renewal")],
                        max_length=10,
                    ),
                ),
                ("wanted", models.PositiveIntegerField(blank=True, null=True)),
                ("chosen_at", models.DateTimeField(blank=True, null=True)),
                ("confirmed_at", models.DateTimeField(blank=True, null=True)),
                ("request_id", models.UUIDField(default=uuid.uuid4)),
                ("correlation_id", models.UUIDField(default=uuid.uuid4)),
                ("sent_at", models.DateTimeField(blank=True, null=True)),
                ("sends", models.PositiveSmallIntegerField(default=0)),
                ("sealed_request", models.TextField(blank=True)),
                ("unsure_at", models.DateTimeField(blank=True, null=True)),
                ("accepted_at", models.DateTimeField(blank=True, null=True)),
                ("taken_until", models.DateTimeField(blank=True, null=True)),
                ("fence", models.BigIntegerField(default=0)),
                ("offered_until", models.DateTimeField(default=partners.models.changes.offer_end)),
                ("not_before", models.DateTimeField(blank=True, null=True)),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
                (
                    "outcome",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("done", "Done"),
                            ("refused", "Refused"),
                            ("stopped", "Stopped"),
                            ("not_done", "Not Done"),
                            ("unknown", "Unknown"),
                        ],
                        max_length=10,
                    ),
                ),
                ("reason", models.CharField(blank=True, max_length=20)),
                ("code", models.CharField(blank=True, max_length=40)),
                ("after", models.JSONField(blank=True, default=dict)),
                (
                    "customer",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="changes", to="partners.customer"
                    ),
                ),
                (
                    "member",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="changes",
                        to="partners.member",
                    ),
                ),
                (
                    "partner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="changes", to="partners.partner"
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("ended_at", None)), fields=["offered_until"], name="change_waiting"
                    ),
                    models.Index(fields=["partner", "customer", "-asked_at"], name="change_of_customer"),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("partner", "id"), name="change_partner_id"),
                    models.UniqueConstraint(
                        condition=models.Q(("confirmed_at__isnull", False), ("ended_at", None)),
                        fields=("partner", "subscription_key"),
                        name="change_one_under_way",
                    ),
                ],
            },
        ),
        EnableRLS("change", system="SELECT, UPDATE, DELETE"),
        SamePartner("change", "customer"),
        SamePartner("change", "member"),
    ]
