"""What people get wrong and what they are told: the rows that tests try and the documentation has.

`python -m docs.make` writes them into docs/errors/bad-input.md, so what stands there has been seen.
"""

from __future__ import annotations

from typing import NamedTuple

ADA = "--as ada --tenant acme"


class Row(NamedTuple):
    """What is typed after `runward`, its exit code, and words of its one message.

    `{ada}` is who types it, other names in braces are what the test puts there. `where` says what
    is wrong where the command alone does not show it.
    """

    typed: str
    code: int
    says: str
    where: str = ""


Section = dict[str, list[Row]]

NO_STORE = "--database-url postgres://127.0.0.1:1/d"

# Tried in this process, in a folder of bad apps and files, and without any server.
TYPED: Section = {
    "Commands, options and values": [
        Row("run", 2, "Did you mean 'runs'?"),
        Row("runs lst", 2, "Did you mean 'list'?"),
        Row("runs list --limt 3", 2, "--limit"),
        Row("runs start", 2, "Missing argument 'agent'"),
        Row("runs show x", 2, "--as USER"),
        Row("runs show x --as ada", 2, "--tenant NAME"),
        Row("runs show x {ada} -o yaml", 2, "yaml"),
        Row("runs list --tenant acme --limit 0", 2, "greater than or equal to 1"),
        Row("runs list --tenant acme --state done", 2, "'answered'"),
        Row(
            "usage show ada --tenant acme --since nonsense",
            2,
            "'--since': 'nonsense' is no time. Say",
        ),
        Row("runs result x {ada} --timeout soon", 2, "'--timeout': 'soon' is no span of time. Say"),
        Row("issuers add k --tenant acme --operation admin", 2, "start or decide"),
        Row("worker", 2, "--app module:name"),
        Row("worker --app bad_shop", 2, "--app module:name"),
        Row("worker --app bad_shop:app --processes many", 2, "a number, or auto"),
    ],
    "A question, where nobody can be asked": [
        Row("runs terminate x {ada}", 2, "say --yes"),
        Row("runs reset x --before t1.model {ada}", 2, "say --yes"),
        Row("issuers revoke kid", 2, "say --yes"),
    ],
    "Apps and agents": [
        Row("agents list --app bad_shp:app", 1, "There is no module 'bad_shp' in"),
        Row("agents list --app bad_shop:ap", 1, "It has bad_shop:app [RW-CONFIGURATION]"),
        Row("agents list --app bad_raises:app", 1, "raised KeyError. Mend the line"),
        Row("tools list --app bad_syntax:app", 1, "raised SyntaxError. Mend the line"),
        Row("agents list --app bad_exit:app", 1, "raised SystemExit. Mend the line"),
        Row("agents list --app bad_agent:app", 1, "Names are a-z", "where an Agent has a space"),
        Row("agents show suport --app bad_shop:app", 5, "It has support [RW-NOT-FOUND]"),
    ],
    "Files to show a model": [
        Row("runs start support Hi {ada} --file none.png", 1, "'none.png'. No such file"),
        Row("runs start support Hi {ada} --file .", 1, "'.'. Is a directory"),
        Row(
            "runs execute support Hi {ada} --file notes.txt",
            1,
            "File 1 of 1, 'notes.txt', is 'text/plain'. Models take application/pdf, image/gif",
        ),
        Row(
            "runs start support Hi {ada} --file small --file fake.png",
            1,
            "File 2 of 2, 'fake.png', is said to be 'image/png'. Its bytes are not",
            "where it is text",
        ),
        Row(
            "runs start support Hi {ada} --file large.png",
            1,
            "'large.png', has 5000001 bytes. At most 5000000 fit for image/png",
        ),
        Row(
            "runs start support Hi {ada} --file huge.pdf",
            1,
            "'huge.pdf' has more than 20971520 bytes. At most 20971520 fit for application/pdf",
        ),
    ],
    "Settings and files": [
        Row("db status", 1, "Set RUNWARD_DATABASE_URL"),
        Row("runs list --tenant acme", 1, "RUNWARD_DATABASE_URL"),
        Row("worker --app bad_shop:app", 1, "Set RUNWARD_DATABASE_URL"),
        Row("worker --app bad_shop:app --database-url postgres://h/d", 1, "Set TEMPORAL_ADDRESS"),
        Row("db status --database-url nonsense", 1, "begins with postgresql://"),
        Row("db print --after 9999", 1, "There are 0001 to"),
        Row("runs show x {ada}", 1, "dev.key'. No such file", "where no key file is"),
        Row("runs show x {ada} --key-file broken.key", 1, "It is not an Ed25519 key"),
        Row("runs show x {ada} --key-file .", 1, "Is a directory"),
        Row("whoami {ada} --key-file none.key", 1, "KeyFile.create"),
        Row("runs show x {ada} --key-file good.key --profile none", 1, "temporal.toml"),
        Row("RUNWARD_CONFIG_FILE=none.toml config list", 1, "There is no such file"),
        Row("RUNWARD_CONFIG_FILE=wrong.toml config list", 1, "The setting 'databse_url'"),
        Row("RUNWARD_CONFIG_FILE=wrong.toml config set user ada", 1, "'databse_url'"),
        Row("RUNWARD_CONFIG_FILE=broken.key config set user ada", 1, "broken.key"),
        Row("config set database_url nonsense", 1, "begins with postgresql://"),
        Row("config set retention_steps_days many", 1, "The setting 'retention_steps_days'"),
        Row("config get tenant", 5, "It has no value", "where it has none"),
        Row("health", 1, "Set RUNWARD_HEALTH_FILE"),
        Row("health --file none.json", 1, "No worker has written it"),
        Row("init", 1, "There is a app.py already", "where there is one"),
        Row("init app.py/shop", 1, "'app.py/shop'. Not a directory. Name another"),
        Row("ticket inspect hello", 4, "not a signed token"),
    ],
    "No server": [
        Row(f"runs list --tenant acme {NO_STORE}", 1, "[RW-STORE]"),
        Row(f"db status {NO_STORE}", 1, "The store at 127.0.0.1:1"),
        Row(f"db migrate {NO_STORE}", 1, "Start it, or correct"),
        Row(
            "runs show x {ada} --key-file good.key --address 127.0.0.1:1",
            1,
            "Start `runward dev`",
        ),
    ],
}

# Tried against servers that answer.
SERVED: Section = {
    "Servers that answer": [
        Row("runs list --database-url {empty}", 1, "runward db migrate", "where no schema is"),
        Row("approvals list --database-url {empty}", 1, "runward db migrate"),
        Row("runs list --database-url {other}", 1, 'database "none" does not exist'),
        Row("db status --database-url {other}", 1, 'database "none" does not exist'),
        Row("db status --database-url {password}", 1, "password authentication failed"),
        Row("runs start support Hello --as ada --namespace nowhere", 1, "nowhere"),
        Row("runs start Support Hello --as ada", 1, "Names are a-z"),
        Row("runs start support {blank} --as ada", 1, "The prompt is empty"),
        Row("ticket inspect {expired}", 4, "It is not valid at"),
        Row("ticket inspect {unknown}", 4, "Its issuer is not registered"),
    ],
}

# Of everything that is named by an id: it is not there, or it is another tenant's.
MISSING: Section = {
    "Ids that are not there": [
        *(
            Row(f"runs {verb} rw-none{more} --as ada", 5, "The run 'rw-none'. Temporal says:")
            for verb, more in {
                "show": "",
                "describe": "",
                "watch": "",
                "result": "",
                "history": "",
                "cancel": "",
                "terminate": " --yes",
                "reset": " --before t1.model --yes",
            }.items()
        ),
        *(
            Row(f"approvals {verb} none --as bob", 5, "The approval request 'none'. Tenant")
            for verb in ("show", "approve", "reject")
        ),
        Row("agents show none --app bad_shop:app", 5, "The agent 'none'. This app does not"),
        Row("usage show nobody", 5, "The user 'nobody'. Tenant"),
        Row("config get tennant", 5, "The setting 'tennant'. There is none of that name. Did you"),
        Row("config set tennant acme", 5, "Did you mean 'tenant'?"),
        Row("config delete tennant", 5, "The setting 'tennant'. It is not in 'runward.toml'"),
        Row("issuers revoke none --yes", 5, "The issuer 'none'. None of that id is registered"),
    ],
}


def rows(section: Section) -> list[Row]:
    """Returns the rows of all its parts."""
    return [one for part in section.values() for one in part]
