"""Catalogue: the faults that chaos draws from."""

from collections.abc import Mapping

from chaos import connection_faults, database_faults, process_faults
from chaos.fault import Fault

FAULTS: Mapping[str, Fault] = {
    "killed-child": process_faults.KilledChild(),
    "killed-machine": process_faults.KilledMachine(),
    "killed-supervisor": process_faults.KilledSupervisor(),
    "frozen-worker": process_faults.FrozenWorker(),
    "rolling-restart": process_faults.RollingRestart(),
    "hurried-stop": process_faults.HurriedStop(),
    "stopped-start": process_faults.StoppedStart(),
    "blocked-loop": process_faults.BlockedLoop(),
    "poison": process_faults.Poison(),
    "ended-connections": connection_faults.EndedConnections(),
    "hammered-connections": connection_faults.HammeredConnections(),
    "silent-network": connection_faults.SilentNetwork(),
    "bad-network": connection_faults.BadNetwork(),
    "killed-mid-statement": connection_faults.KilledMidStatement(),
    "cut-network": connection_faults.CutNetwork(),
    "killed-postgres": database_faults.KilledPostgres(),
    "absent-postgres": database_faults.AbsentPostgres(),
    "read-only-postgres": database_faults.ReadOnlyPostgres(),
    "locked-table": database_faults.LockedTable(),
    "locked-rows": database_faults.LockedRows(),
}
"""By the name that stands on the command line, in the order of the report."""
