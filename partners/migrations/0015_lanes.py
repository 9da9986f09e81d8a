from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("partners", "0012_chosen_customers_of_one_partner")]

    operations = [
        migrations.AddField("job", "lane", models.PositiveSmallIntegerField(default=0)),
        migrations.RemoveConstraint("job", "job_once_per_kind"),
        migrations.AddConstraint(
            "job", models.UniqueConstraint(fields=("partner", "kind", "lane"), name="job_once_per_lane")
        ),
    ]
