"""For your tests: a database of their own, and running what they have deferred.

Example:
    ```python
    async def test_a_welcome_is_sent(pgtasks_database):
        async with connect():
            await send_welcome.defer(42)
            await drain()
        assert outbox == ["welcome, 42"]
    ```

The fixture comes with pgtasks: see docs/testing.md.
"""

from pgtasks.drain import Drained, drain
from pgtasks.settlement import Ended
from pgtasks.temporary_database import TemporaryDatabase, temporary_database

__all__ = ["Drained", "Ended", "TemporaryDatabase", "drain", "temporary_database"]
