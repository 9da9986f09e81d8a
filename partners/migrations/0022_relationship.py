import datetime

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

from tokens.rls import EnableRLS


class Migration(migrations.Migration):
    dependencies = [
        ("partners", "0021_customers_that_wait"),
    ]

    operations = [
        migrations.CreateModel(
            name="Relationship",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("content_hash", models.BinaryField(max_length=16)),
                ("first_seen_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("changed_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("missing_since", models.DateTimeField(blank=True, null=True)),
                ("removed_at", models.DateTimeField(blank=True, null=True)),
                ("removed_reason", models.CharField(blank=True, max_length=40)),
                ("key", models.CharField(max_length=100)),
                ("relationship_id", models.CharField(max_length=100)),
                ("name", models.CharField(blank=True, max_length=400)),
                ("status", models.CharField(blank=True, max_length=40)),
                ("customer_tenant_id", models.UUIDField(blank=True, null=True, verbose_name="customer's tenant")),
                ("customer_name", models.CharField(blank=True, max_length=400)),
                (
                    "provider_tenant_id",
                    models.UUIDField(blank=True, null=True, verbose_name="indirect provider's tenant"),
                ),
                ("awaits_partner", models.BooleanField(blank=True, null=True)),
                ("roles", models.TextField(blank=True)),
                ("duration", models.CharField(blank=True, max_length=20)),
                ("auto_extend", models.CharField(blank=True, max_length=20)),
                ("created_at", models.DateTimeField(blank=True, null=True)),
                ("modified_at", models.DateTimeField(blank=True, null=True)),
                ("activated_at", models.DateTimeField(blank=True, null=True)),
                ("end_at", models.DateTimeField(blank=True, null=True)),
                ("is_over", models.BooleanField(default=False)),
                (
                    "lists_by",
                    models.DateTimeField(default=datetime.datetime(9999, 12, 31, 0, 0, tzinfo=datetime.UTC)),
                ),
                ("lapses_at", models.DateTimeField(blank=True, null=True)),
                (
                    "partner",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="relationships",
                        to="partners.partner",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("removed_at", None)),
                        fields=["partner", "is_over", "lists_by", "id"],
                        name="relationship_by_end",
                    ),
                    models.Index(
                        condition=models.Q(("lapses_at__isnull", False), ("removed_at", None)),
                        fields=["partner", "lapses_at", "id"],
                        name="relationship_by_lapse",
                    ),
                    models.Index(fields=["partner", "customer_tenant_id"], name="relationship_by_customer"),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("partner", "key"), name="relationship_once_per_partner"),
                    models.UniqueConstraint(fields=("partner", "id"), name="relationship_partner_id"),
                ],
            },
        ),
        EnableRLS("relationship", system=""),
    ]
