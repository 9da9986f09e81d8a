from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("partners", "0014_more_is_mirrored")]

    operations = [
        migrations.AddField("job", "lane", models.PositiveSmallIntegerField(default=0)),
        migrations.RemoveConstraint("job", "job_once_per_kind"),
        migrations.AddConstraint(
            "job", models.UniqueConstraint(fields=("partner", "kind", "lane"), name="job_once_per_lane")
        ),
    ]
