"""Tasks with schedules, for the worker processes of these tests."""

from acceptance.history import record

from pgtasks import Context, task


@task(cron="* * * * * *", misfire="catch_up", timeout=5)
async def every_second(context: Context) -> None:
    key = str(context.scheduled_at).replace(" ", "T")
    record("start", key, context.id)
    record("end", key)
