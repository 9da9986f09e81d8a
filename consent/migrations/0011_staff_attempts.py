from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("consent", "0010_row_level_security"),
    ]

    operations = [
        migrations.RemoveConstraint(model_name="consentattempt", name="consent_attempt_has_partner"),
        migrations.AlterField(
            model_name="consentattempt",
            name="kind",
            field=models.CharField(
                choices=[
                    ("consent", "Consent"),
                    ("signin", "Sign In"),
                    ("admin", "Admin Consent"),
                    ("staff", "Staff"),
                ],
                max_length=10,
            ),
        ),
        migrations.AddConstraint(
            model_name="consentattempt",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind__in", ["signin", "staff"]), ("partner__isnull", False), _connector="OR"),
                name="consent_attempt_has_partner",
            ),
        ),
    ]
