from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("partners", "0007_limited_members"),
    ]

    operations = [
        migrations.AddField(
            model_name="member",
            name="signed_in_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
