from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("partners", "0022_relationship"),
    ]

    operations = [
        migrations.AddField(
            model_name="service",
            name="blamed",
            field=models.JSONField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="service",
            name="blamed_until",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
