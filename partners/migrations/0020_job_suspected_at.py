from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("partners", "0019_run_brought_back"),
    ]

    operations = [
        migrations.AddField(
            model_name="job",
            name="suspected_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
