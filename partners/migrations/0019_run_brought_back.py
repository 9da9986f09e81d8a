from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("partners", "0018_no_tenant_reads_a_password"),
    ]

    operations = [
        migrations.AddField(
            model_name="run",
            name="brought_back_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
