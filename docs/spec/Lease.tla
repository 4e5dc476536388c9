------------------------------- MODULE Lease -------------------------------
(* How pgtasks keeps a message with one worker at a time, and settles it once.

   A message is a row. A claim leases it: `due` becomes false and `delivery` (the column read_ct)
   grows by one. Whoever ends or extends a lease names the message and the delivery it was told;
   the statement does nothing when the row has another one: the fence. Time is not counted. That a
   lease or a delay runs out is a step, `Expire`, and any step may happen late.

   A worker that is paused does nothing and knows nothing; what it sent before may still arrive. A
   process that crashes forgets everything; its supervisor gives back what it held or has it run
   alone, at any later moment or never. A foreign client may read and delete as it likes.

   tests/unit/lease_spec.py says the same in Python, action by action, under the same names.
   README.md beside this file says how to check both. *)
EXTENDS Integers, FiniteSets

CONSTANTS
    Workers,
    Messages,
    Slots,       \* how many messages a worker holds at a time
    MaxMishaps,  \* how many mishaps there are at most, all in all
    Broken       \* what is left out of the rules; "nothing" but to see an invariant fail

ASSUME Broken \in {
    "nothing",
    "no fence",         \* a settlement names the message and no delivery
    "read_ct lowered",  \* giving a message back takes its delivery back
    "vt alone",         \* a settlement counts while a lease stands, whoever holds it
    "own clock",        \* a worker settles while its lease stands by its own clock; no fence
    "count ignored",    \* a transaction commits though its completion hit no row
    "insert alone",     \* a message is archived, and its row not deleted with it
    "delete alone",     \* a row is deleted, and not archived with it
    "claims leased",    \* a claim takes rows that are not due
    "extends put back"} \* a lease is extended until its worker knows how its settlement went

VARIABLES
    row,       \* of each message: is it in the queue, its delivery, is it due, was it put back
    archived,  \* how often each message was archived (or, what is the same here, deleted as done)
    effects,   \* how often what a handler wrote in the completion's transaction was committed
    deleted,   \* messages that a foreign client deleted
    leases,    \* what worker processes know of what they hold, or held
    wire,      \* statements that were sent and have not arrived
    paused,    \* workers that are paused
    mishaps,   \* how many mishaps there were
    wrongs     \* what must not happen, and did

vars == <<row, archived, effects, deleted, leases, wire, paused, mishaps, wrongs>>

(* `turn` counts claims and foreign reads as they happened: it tells who holds a message, also
   where `delivery` does not. No statement of ours sees it. *)
Row == [queued: BOOLEAN, delivery: Nat, turn: Nat, due: BOOLEAN, back: BOOLEAN]

Gone == [queued |-> FALSE, delivery |-> 0, turn |-> 0, due |-> FALSE, back |-> FALSE]

Sent == {"complete", "retry", "release"}
(* Phases of a lease in a living process. One named like a statement waits for its answer. *)
Live == {"claimed", "running"} \cup Sent
(* A dead process had not begun it or was done with it: "left"; it was running it: "suspect". *)
Phases == Live \cup {"left", "suspect"}

(* `over`: it ran out, or a foreign client took the message; for the invariants and for `Lose`. *)
Lease == [worker: Workers, message: Messages, delivery: Nat, turn: Nat, phase: Phases,
          over: BOOLEAN]

Statement == [message: Messages, delivery: Nat, turn: Nat, kind: Sent \cup {"extend"}]

Up(w) == w \notin paused

HeldBy(w) == {l \in leases : l.worker = w /\ l.phase \in Live}

StatementOf(l, kind) ==
    [message |-> l.message, delivery |-> l.delivery, turn |-> l.turn, kind |-> kind]

(* Somebody lives who extends the lease that stands on this message. *)
IsKept(m) == \E l \in leases : /\ l.message = m
                               /\ l.turn = row[m].turn /\ ~row[m].back
                               /\ l.phase \in Live
                               /\ Up(l.worker)

WithOver(all, m, turn, is) ==
    {IF l.message = m /\ l.turn = turn THEN [l EXCEPT !.over = is] ELSE l : l \in all}

With(l, phase) == (leases \ {l}) \cup {[l EXCEPT !.phase = phase]}

Mishap == mishaps < MaxMishaps /\ mishaps' = mishaps + 1

-----------------------------------------------------------------------------
(* What a statement does when it arrives. `s` is anything with a message, a delivery and a turn. *)

Stands(s) ==
    /\ row[s.message].queued
    /\ CASE Broken \in {"no fence", "own clock"} -> TRUE
         [] Broken = "vt alone" -> ~row[s.message].due
         [] OTHER -> row[s.message].delivery = s.delivery

WrongsOf(s, kind) ==
    IF ~Stands(s) \/ s.turn = row[s.message].turn THEN {}
    ELSE IF kind = "extend" THEN {"stale extension"}
    ELSE IF row[s.message].due THEN {"stale settlement"}
    ELSE {"stale settlement", "another's lease ended"}

RowAfter(s, kind) ==
    LET old == row[s.message] IN
    IF ~Stands(s) THEN old ELSE
    CASE kind = "complete" -> IF Broken = "insert alone" THEN old ELSE Gone
      [] kind = "extend" -> [old EXCEPT !.due = FALSE]
      [] kind = "retry" -> [old EXCEPT !.due = FALSE, !.back = TRUE]
      [] kind = "release" ->
            [old EXCEPT !.due = TRUE,
                        !.back = TRUE,
                        !.delivery = IF Broken = "read_ct lowered" THEN @ - 1 ELSE @]

Execute(s, kind) ==
    /\ row' = [row EXCEPT ![s.message] = RowAfter(s, kind)]
    /\ archived' = IF kind = "complete" /\ Stands(s) /\ Broken # "delete alone"
                   THEN [archived EXCEPT ![s.message] = @ + 1] ELSE archived
    /\ effects' = IF kind = "complete" /\ (Stands(s) \/ Broken = "count ignored")
                  THEN [effects EXCEPT ![s.message] = @ + 1] ELSE effects
    /\ wrongs' = wrongs \cup WrongsOf(s, kind)

(* The leases after an extension: what it found standing is not over. *)
Extended(s, all) ==
    IF Stands(s) THEN WithOver(all, s.message, row[s.message].turn, FALSE) ELSE all

-----------------------------------------------------------------------------
(* What workers do. *)

Read(m) ==
    [row[m] EXCEPT !.delivery = @ + 1, !.turn = @ + 1, !.due = FALSE, !.back = FALSE]

Claim(w, m) ==
    /\ Up(w)
    /\ Cardinality(HeldBy(w)) < Slots
    /\ row[m].queued
    /\ row[m].due \/ Broken = "claims leased"
    /\ LET new == Read(m) IN
        /\ row' = [row EXCEPT ![m] = new]
        /\ leases' = leases \cup {[worker |-> w, message |-> m, delivery |-> new.delivery,
                                   turn |-> new.turn, phase |-> "claimed", over |-> FALSE]}
    /\ UNCHANGED <<archived, effects, deleted, wire, paused, mishaps, wrongs>>

Start(l) ==
    /\ Up(l.worker)
    /\ l.phase = "claimed"
    /\ leases' = With(l, "running")
    /\ UNCHANGED <<row, archived, effects, deleted, wire, paused, mishaps, wrongs>>

Send(l, kind) ==
    /\ Up(l.worker)
    /\ Broken = "own clock" => ~l.over
    /\ leases' = With(l, kind)
    /\ wire' = wire \cup {StatementOf(l, kind)}
    /\ UNCHANGED <<row, archived, effects, deleted, paused, wrongs>>

(* The handler returns. What it wrote in its transaction is sent along. *)
Complete(l) ==
    /\ l.phase = "running"
    /\ Send(l, "complete")
    /\ UNCHANGED mishaps

(* The handler fails, or asks to run later: due again after a delay. *)
Retry(l) ==
    /\ l.phase = "running"
    /\ Send(l, "retry")
    /\ Mishap

(* The worker stops: due again at once. *)
Release(l) ==
    /\ l.phase \in {"claimed", "running"}
    /\ Send(l, "release")
    /\ Mishap

(* Sent and executed in one step; `Pause` leaves some on the way. What is being settled may have
   been put back already: it is extended only if it was not. *)
Extend(l) ==
    /\ Up(l.worker)
    /\ l.phase \in Live
    /\ l.phase \in Sent => ~row[l.message].back \/ Broken = "extends put back"
    /\ Stands(l)
    /\ Execute(l, "extend")
    /\ leases' = Extended(l, leases)
    /\ UNCHANGED <<deleted, wire, paused, mishaps>>

(* The keeper learns, from an extension or by its clock, that a lease is over: the run is ended. *)
Lose(l) ==
    /\ Up(l.worker)
    /\ l.phase \in {"claimed", "running"}
    /\ l.over
    /\ leases' = leases \ {l}
    /\ UNCHANGED <<row, archived, effects, deleted, wire, paused, mishaps, wrongs>>

(* The commit is not answered: the handler sees a broken connection, and goes on. *)
Doubt(l) ==
    /\ Up(l.worker)
    /\ l.phase = "complete"
    /\ leases' = With(l, "running")
    /\ Mishap
    /\ UNCHANGED <<row, archived, effects, deleted, wire, paused, wrongs>>

-----------------------------------------------------------------------------
(* What arrives. *)

Waiting(s) ==
    {l \in leases : l.message = s.message /\ l.turn = s.turn /\ l.phase = s.kind}

(* Who waits for it has the answer, whatever it says. *)
Arrive(s) ==
    /\ Execute(s, s.kind)
    /\ leases' = (IF s.kind = "extend" THEN Extended(s, leases) ELSE leases) \ Waiting(s)
    /\ wire' = wire \ {s}
    /\ UNCHANGED <<deleted, paused, mishaps>>

(* It is executed, and the answer lost: it is sent again. *)
AnswerLost(s) ==
    /\ Waiting(s) # {}
    /\ Execute(s, s.kind)
    /\ Mishap
    /\ UNCHANGED <<deleted, leases, wire, paused>>

-----------------------------------------------------------------------------
(* What supervisors do for what their dead processes held. *)

GiveBack(l) ==
    /\ l.phase \in {"left", "suspect"}
    /\ Execute(l, "release")
    /\ leases' = leases \ {l}
    /\ UNCHANGED <<deleted, wire, paused, mishaps>>

(* A fresh process goes on with the same lease, to run alone what may have ended the last one. *)
Take(l) ==
    /\ Up(l.worker)
    /\ l.phase = "suspect"
    /\ Execute(l, "extend")
    /\ leases' = IF Stands(l) THEN Extended(l, With(l, "claimed")) ELSE leases \ {l}
    /\ UNCHANGED <<deleted, wire, paused, mishaps>>

-----------------------------------------------------------------------------
(* What happens to them. *)

RunOut(m) ==
    /\ row[m].queued
    /\ ~row[m].due
    /\ row' = [row EXCEPT ![m].due = TRUE]
    /\ leases' = WithOver(leases, m, row[m].turn, TRUE)
    /\ UNCHANGED <<archived, effects, deleted, wire, paused, wrongs>>

(* A delay is over, or a lease that nobody extends. *)
Expire(m) == ~IsKept(m) /\ RunOut(m) /\ UNCHANGED mishaps

(* A lease is over though its worker lives: its extensions did not arrive. *)
Lapse(m) == IsKept(m) /\ RunOut(m) /\ Mishap

(* Also what a claim does whose answer never reaches its worker. *)
ForeignRead(m) ==
    /\ row[m].queued
    /\ Mishap
    /\ row' = [row EXCEPT ![m] = Read(m)]
    /\ leases' = WithOver(leases, m, row[m].turn, TRUE)
    /\ UNCHANGED <<archived, effects, deleted, wire, paused, wrongs>>

ForeignDelete(m) ==
    /\ row[m].queued
    /\ Mishap
    /\ row' = [row EXCEPT ![m] = Gone]
    /\ deleted' = deleted \cup {m}
    /\ leases' = WithOver(leases, m, row[m].turn, TRUE)
    /\ UNCHANGED <<archived, effects, wire, paused, wrongs>>

(* `late`: an extension that was on its way; one of these sets. One that was sent while the lease
   was being settled is not worth its states: it extends nothing that was put back. *)
MayBeOnItsWay(w) ==
    {{}} \cup {{StatementOf(l, "extend")} : l \in {held \in HeldBy(w) : held.phase \notin Sent}}

Pause(w, late) ==
    /\ Up(w)
    /\ HeldBy(w) # {}
    /\ Mishap
    /\ paused' = paused \cup {w}
    /\ wire' = wire \cup late
    /\ UNCHANGED <<row, archived, effects, deleted, leases, wrongs>>

Resume(w) ==
    /\ ~Up(w)
    /\ paused' = paused \ {w}
    /\ UNCHANGED <<row, archived, effects, deleted, leases, wire, mishaps, wrongs>>

(* Its supervisor starts another at once. A completion in a transaction is marked as running. *)
Crash(w) ==
    /\ HeldBy(w) # {}
    /\ Mishap
    /\ paused' = paused \ {w}
    /\ leases' = (leases \ HeldBy(w)) \cup
        {[l EXCEPT !.phase = IF l.phase \in {"running", "complete"} THEN "suspect" ELSE "left"] :
            l \in HeldBy(w)}
    /\ UNCHANGED <<row, archived, effects, deleted, wire, wrongs>>

-----------------------------------------------------------------------------

Init ==
    /\ row = [m \in Messages |-> [Gone EXCEPT !.queued = TRUE, !.due = TRUE]]
    /\ archived = [m \in Messages |-> 0]
    /\ effects = [m \in Messages |-> 0]
    /\ deleted = {}
    /\ leases = {}
    /\ wire = {}
    /\ paused = {}
    /\ mishaps = 0
    /\ wrongs = {}

(* What happens by itself, sooner or later, when nothing goes wrong. *)
Progress ==
    \/ \E w \in Workers : Resume(w) \/ \E m \in Messages : Claim(w, m)
    \/ \E l \in leases :
        Start(l) \/ Complete(l) \/ Extend(l) \/ Lose(l) \/ GiveBack(l) \/ Take(l)
    \/ \E s \in wire : Arrive(s)
    \/ \E m \in Messages : Expire(m)

Mishaps ==
    \/ \E l \in leases : Retry(l) \/ Release(l) \/ Doubt(l)
    \/ \E s \in wire : AnswerLost(s)
    \/ \E m \in Messages : Lapse(m) \/ ForeignRead(m) \/ ForeignDelete(m)
    \/ \E w \in Workers : Crash(w) \/ \E late \in MayBeOnItsWay(w) : Pause(w, late)

Next == Progress \/ Mishaps

Spec == Init /\ [][Next]_vars /\ WF_vars(Progress)

-----------------------------------------------------------------------------
(* What always holds. *)

TypeOK ==
    /\ row \in [Messages -> Row]
    /\ archived \in [Messages -> Nat]
    /\ effects \in [Messages -> Nat]
    /\ deleted \subseteq Messages
    /\ \A l \in leases : l \in Lease
    /\ \A s \in wire : s \in Statement
    /\ paused \subseteq Workers
    /\ mishaps \in 0..MaxMishaps
    /\ wrongs \subseteq {"stale settlement", "another's lease ended", "stale extension"}

(* A settlement counts only from the holder of the highest delivery. *)
OnlyTheHolderSettles == "stale settlement" \notin wrongs

NobodyElsesLeaseIsEnded == "another's lease ended" \notin wrongs

NobodyElsesLeaseIsExtended == "stale extension" \notin wrongs

CompletedAtMostOnce == \A m \in Messages : archived[m] <= 1

NeverInTwoPlaces ==
    \A m \in Messages : archived[m] > 0 => ~row[m].queued /\ m \notin deleted

(* But by somebody who deletes it. *)
NeverLost == \A m \in Messages : row[m].queued \/ archived[m] > 0 \/ m \in deleted

(* What is committed with a completion is committed once, and not while it may run again. *)
EffectsOnce ==
    \A m \in Messages : effects[m] <= 1 /\ (effects[m] > 0 => ~row[m].queued)

DeliveryNeverFalls == \A m \in Messages : row[m].delivery = row[m].turn

Running(m) == {l \in leases : l.message = m /\ l.phase = "running"}

(* Two run a message at a time only when the elder one's lease is over. *)
TogetherOnlyAfterExpiry ==
    \A m \in Messages : \A a, b \in Running(m) : a.turn < b.turn => a.over

(* Without a mishap there is one delivery, and one run. Each mishap costs one more of a message at
   most, beside the delivery that a foreign read is itself. *)
DeliveriesArePaidFor ==
    \A m \in Messages :
        row[m].turn <= 1 + 2 * mishaps /\ Cardinality(Running(m)) <= 1 + mishaps

(* And this comes true when mishaps end. *)
IsDrained == \A m \in Messages : archived[m] = 1 \/ m \in deleted

Drained == <>IsDrained

=============================================================================
