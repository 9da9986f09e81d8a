from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("partners", "0016_change"),
    ]

    operations = [
        migrations.AddField(
            model_name="job",
            name="suspected_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
