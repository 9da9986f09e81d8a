"""Members may be limited to some customers; on PostgreSQL both ends of a choice belong to the same partner by key."""

import django.db.models.deletion
from django.db import migrations, models

KEYS = {"member": "partners_member", "customer": "partners_customer"}


def add(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        for column, table in KEYS.items():
            schema_editor.execute(
                f"ALTER TABLE partners_chosencustomer ADD CONSTRAINT chosen_customer_{column}_of_partner"
                f" FOREIGN KEY (partner_id, {column}_id) REFERENCES {table} (partner_id, id)"
                " DEFERRABLE INITIALLY DEFERRED"
            )


def remove(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        for column in KEYS:
            schema_editor.execute(
                f"ALTER TABLE partners_chosencustomer DROP CONSTRAINT IF EXISTS chosen_customer_{column}_of_partner"
            )


class Migration(migrations.Migration):
    dependencies = [
        ("partners", "0006_staff_role"),
    ]

    operations = [
        migrations.AddField(
            model_name="member",
            name="limited_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddConstraint(
            model_name="member",
            constraint=models.CheckConstraint(
                condition=models.Q(("limited_at", None), ("role__in", ("operator", "reader")), _connector="OR"),
                name="member_limited_by_role",
            ),
        ),
        migrations.CreateModel(
            name="ChosenCustomer",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "customer",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="chosen_for", to="partners.customer"
                    ),
                ),
                (
                    "member",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="chosen_customers",
                        to="partners.member",
                    ),
                ),
                (
                    "partner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to="partners.partner"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("member", "customer"), name="chosen_customer_once_per_member"),
                    models.UniqueConstraint(fields=("partner", "id"), name="chosen_customer_partner_id"),
                ],
            },
        ),
        migrations.RunPython(add, remove, elidable=False),
    ]
