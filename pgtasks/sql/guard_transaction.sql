-- For the rest of this transaction, plan each statement for the values it is given, and do not wait
-- for a client that is gone. On a connection that keeps statements a plan may be older than the
-- messages: made while the queue was empty, it walks the whole table (150 ms for one completion
-- among 400,000 messages, planned anew 0.1 ms). And a client whose network swallowed its COMMIT
-- would keep its message locked until the server's system finds out: for two hours, as a rule.
SELECT pg_catalog.set_config('plan_cache_mode', 'force_custom_plan', true),
    pg_catalog.set_config('idle_in_transaction_session_timeout', '5s', true)
