-- The time by the clock that decides.
SELECT clock_timestamp()
