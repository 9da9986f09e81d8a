import django.db.models.deletion
from django.db import migrations, models

from tokens.rls import EnableRLS


class Migration(migrations.Migration):
    dependencies = [
        ("partners", "0014_more_is_mirrored"),
    ]

    operations = [
        migrations.CreateModel(
            name="Pace",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("service", models.CharField(max_length=20)),
                ("customer", models.CharField(blank=True, max_length=36)),
                ("not_before", models.DateTimeField(blank=True, null=True)),
                ("rate", models.FloatField(blank=True, null=True)),
                ("slowed_at", models.DateTimeField(blank=True, null=True)),
                ("taken_until", models.FloatField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name="Service",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("cloud", models.CharField(max_length=10)),
                ("name", models.CharField(max_length=20)),
                ("opened_at", models.DateTimeField(blank=True, null=True)),
                ("open_until", models.DateTimeField(blank=True, null=True)),
                ("probe_until", models.DateTimeField(blank=True, null=True)),
                ("times", models.PositiveIntegerField(default=0)),
                ("why", models.CharField(blank=True, max_length=40)),
                ("taken_until", models.FloatField(default=0)),
                ("tickets_until", models.FloatField(default=0)),
            ],
        ),
        migrations.RemoveConstraint(
            model_name="job",
            name="job_once_per_kind",
        ),
        migrations.AddField(
            model_name="job",
            name="cancelled_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="job",
            name="lane",
            field=models.PositiveSmallIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="job",
            name="quarantined_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="job",
            name="turn",
            field=models.PositiveIntegerField(default=1),
        ),
        migrations.AddField(
            model_name="job",
            name="wait_code",
            field=models.CharField(blank=True, max_length=40),
        ),
        migrations.AlterField(
            model_name="job",
            name="partner",
            field=models.ForeignKey(
                db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name="jobs", to="partners.partner"
            ),
        ),
        migrations.AlterField(
            model_name="run",
            name="outcome",
            field=models.CharField(
                choices=[
                    ("running", "Running"),
                    ("done", "Done"),
                    ("already_running", "Already Running"),
                    ("waiting", "Waiting"),
                    ("refused", "Refused"),
                    ("failed", "Failed"),
                    ("taken_over", "Taken Over"),
                    ("cancelled", "Cancelled"),
                ],
                default="running",
                max_length=20,
            ),
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("claimed_until__isnull", False), ("leased_until__isnull", False), _connector="OR"),
                fields=["turn", "next_run_at", "id"],
                name="job_under_way",
            ),
        ),
        migrations.AddConstraint(
            model_name="job",
            constraint=models.UniqueConstraint(fields=("partner", "kind", "lane"), name="job_once_per_lane"),
        ),
        migrations.AddField(
            model_name="pace",
            name="partner",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="paces", to="partners.partner"
            ),
        ),
        migrations.AddConstraint(
            model_name="service",
            constraint=models.UniqueConstraint(fields=("cloud", "name"), name="service_once"),
        ),
        migrations.AddConstraint(
            model_name="pace",
            constraint=models.UniqueConstraint(fields=("partner", "service", "customer"), name="pace_once"),
        ),
        migrations.AddConstraint(
            model_name="pace",
            constraint=models.UniqueConstraint(fields=("partner", "id"), name="pace_partner_id"),
        ),
        EnableRLS("pace"),
    ]
