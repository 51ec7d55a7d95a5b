"""Real processes under real faults, and checkers over what they recorded.

python -m faults kills --rounds 1000 --seed 1      kill -9 of workers, supervisor and clients
python -m faults all                               every scenario once

server.py     `wa serve` as a process: start, kill -9, what its log and its disk say
zygote.py     forks the client processes, so that one costs milliseconds and not an interpreter start
person.py     one client process: an account of the SDK that keeps writing to others
people.py     the harness's side of the client processes
journal.py    what a client was told, appended before it acts on it
history.py    what everybody recorded, read back into one value
checks.py     what must hold over it
explain.py    the story of one message, for a violation
arena.py      a server and its clients, driven together
kills.py, disk_full.py, cuts.py (through proxy.py), slow_reader.py, corrupt.py, early_ack.py    the scenarios
report.py     progress and the table at the end
"""
