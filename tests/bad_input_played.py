"""What people get wrong where it takes more than a command to see it: the other rows of that page.

They need a server that goes away, a folder that is locked, a disk that is full.
"""

from __future__ import annotations

from .bad_input_rows import Row

# Each is played by a test of its own, which takes its row by its key. Of a row with code 0 the
# words are in what is printed: it is no error.
PLAYED: dict[str, dict[str, Row]] = {
    "Names that only an app or a worker can judge": {
        "agent": Row(
            "runs execute suport Hello --as ada",
            1,
            "suport: unknown agent. Did you mean 'support'?",
            "as the worker says, once the run has failed",
        ),
        "tool": Row(
            "doctor --app bad_policy:app",
            1,
            "denied_tools has 'refnd', and nothing in this app is called so. Did you mean 'refund'"
            "?",
            "where the policy's list has that name; a worker warns in the same words",
        ),
        "traceback": Row(
            "agents list --app bad_raises:app",
            1,
            "KeyError: 'price'",
            "in your own traceback, without a frame of ours",
        ),
    },
    "Nobody answers": {
        "no worker": Row(
            "approvals approve {id} --as bob --role finance",
            1,
            "No worker answered in time. Start one: `runward worker --app",
            "where none runs; nothing is decided, and it can be made again",
        ),
        "gone": Row(
            "runs result {run} --as ada --address {gate}",
            1,
            "[RW-TEMPORAL]",
            "where Temporal goes away meanwhile, and does not come back in ten tries",
        ),
        "deaf": Row(
            "db status --database-url {deaf}",
            1,
            "It did not answer in time. Start it",
            "where something listens, and says nothing",
        ),
        "no database": Row(
            "RUNWARD_DATABASE_URL=postgres://127.0.0.1:1/d dev --ephemeral",
            1,
            "Start it, or correct RUNWARD_DATABASE_URL",
        ),
        "no Temporal": Row(
            "dev --ephemeral --temporal-address 127.0.0.1:1",
            1,
            "Connection refused. Start it, or correct --temporal-address",
            "with an app or without",
        ),
        "no port": Row(
            "dev --ephemeral --temporal-address nohost",
            1,
            "Start it, or correct --temporal-address: it is host:port",
        ),
        "no server": Row(
            "dev --ephemeral --app shop:app --temporal-address :7233",
            1,
            "invalid target URL: empty host. Start it, or correct --temporal-address",
        ),
        "deaf Temporal": Row(
            "dev --ephemeral --temporal-address {deaf}",
            1,
            "It did not answer in time. Start it, or correct --temporal-address",
            "where something listens, and says nothing",
        ),
        "empty worker": Row(
            "worker --app shop:app --database-url {empty} --address {temporal}",
            1,
            "of its migrations are not applied, from 0001. Run `runward db migrate`",
        ),
        "old worker": Row(
            "worker --app shop:app --database-url {old} --address {temporal}",
            1,
            "of its migrations are not applied, from 0009. Run `runward db migrate`",
        ),
        "newer worker": Row(
            "worker --app shop:app --database-url {newer} --address {temporal}",
            1,
            "this version of runward does not know. Upgrade runward",
        ),
        "doctor's database": Row(
            "doctor --database-url {old}",
            1,
            "Its migrations from 0009 are not applied",
            "and what mends it",
        ),
        "codec": Row("RUNWARD_CODEC=bad_codec:codec doctor", 1, "bad_codec:codec raised KeyError"),
    },
    "What is taken, full or forbidden": {
        "taken folder": Row(
            "dev --state-dir state",
            1,
            "is in use by process",
            "where another `runward dev` has it; ports it takes are free ones",
        ),
        "taken port": Row(
            "dev",
            1,
            "address already in use",
            "where others took three times in a row what was free a moment before",
        ),
        "locked home": Row(
            "dev --ephemeral",
            1,
            "no place to keep one",
            "where no `temporal` is found, nor a home that it could be obtained into",
        ),
        "no home": Row(
            "RUNWARD_CONFIG_FILE=~nobody-of-that-name/r.toml config list",
            1,
            "A user's home. Nothing says where it is. Set HOME",
        ),
        "locked init": Row("init", 1, "Permission denied", "in a folder that is not yours"),
        "locked key": Row("issuers add locked/k --create --tenant acme", 1, "Permission denied"),
        "locked dev": Row("dev --state-dir locked/s", 1, "Permission denied"),
        "unreadable key": Row(
            "runs show x {ada} --key-file good.key",
            1,
            "The key file 'good.key'. Permission denied. Name another",
            "where it is not yours to read",
        ),
        "unreadable profiles": Row(
            "TEMPORAL_CONFIG_FILE=profiles.toml config list",
            1,
            "Permission denied (os error 13). Check TEMPORAL_* and profiles.toml",
        ),
        "unreadable file": Row(
            "runs start support Hi {ada} --file small",
            1,
            "'small'. Permission denied. Give this user the right to it",
        ),
        "full app": Row(
            "init shop",
            1,
            "'shop/app.py'. File too large. Make room there",
            "where the disk is full; half an app is not left",
        ),
        "full dev": Row(
            "dev --state-dir state",
            1,
            "state'. File too large. Make room there",
        ),
        "full key": Row(
            "issuers add my.key --create --tenant acme",
            1,
            "The new key file 'my.key'. File too large",
            "nor half a key",
        ),
        "full settings": Row(
            "config set user bob",
            1,
            "runward.toml'. File too large. Make room there",
            "the file stays as it was",
        ),
        "full output": Row("db print > /dev/full", 1, "No space left on device"),
    },
    "Pipes and terminals": {
        "head": Row("db print | head -1", 1, "", "of whose code the shell says nothing, either"),
        "no text": Row(
            "runs start support gr\\xfcn {ada}",
            1,
            "It is no text in this terminal's encoding",
            "where bytes are Latin-1 and the terminal is UTF-8, or it is no UTF-8 at all",
        ),
        "no name": Row(
            "runs list --tenant M\\xfcller",
            1,
            "Word 4 of the command. It is no text in this terminal's encoding",
            "likewise; so for every word",
        ),
        "no value": Row(
            "RUNWARD_TENANT=M\\xfcller runs list",
            1,
            "The setting 'tenant'. It is no text in this terminal's encoding",
            "likewise",
        ),
        "watched head": Row(
            "runs watch {run} --as ada | head -1", 1, "", "once the run goes on; it tells each line"
        ),
        "no utf-8": Row(
            "agents show support --app bad_shop:app",
            0,
            "scripted:gr\\xfcn",
            "where the locale is C: what it lacks is printed as escapes, in JSON as JSON's",
        ),
    },
}


def played(key: str) -> Row:
    """Returns the row of that key."""
    return next(part[key] for part in PLAYED.values() if key in part)
