"""What people get wrong and what they are told: the rows that tests try and the documentation has.

`python -m docs.make` writes them into docs/bad-input.md, so what stands there has been seen.
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
        Row("runs list --limt 3", 2, "No such option: --limt (Possible options: --limit)"),
        Row("runs start", 2, "Missing argument 'AGENT'"),
        Row("runs show x", 2, "say in whose name: --as USER, or RUNWARD_USER", "where none is set"),
        Row(
            "runs show x --as ada",
            2,
            "say which tenant: --tenant NAME, or RUNWARD_TENANT",
            "likewise",
        ),
        Row("runs show x {ada} -o yaml", 2, "'-o': 'yaml' is not one of 'text', 'json', 'jsonl'"),
        Row("runs watch x {ada} -o json", 2, "'-o': 'json' is not one of 'text', 'jsonl'"),
        Row("runs list --tenant acme --limit 0", 2, "'--limit': It has to be at least 1"),
        Row("runs list --tenant acme --limit few", 2, "'--limit': It is no whole number"),
        Row("runs list --tenant acme --state done", 2, "'--state': 'done' is not one of 'open',"),
        Row(
            "usage show ada --tenant acme --since nonsense",
            2,
            "'--since': 'nonsense' is no time. Say",
        ),
        Row("runs result x {ada} --timeout soon", 2, "'--timeout': 'soon' is no span of time. Say"),
        Row(
            "issuers add k --tenant acme --operation admin",
            2,
            "--operation admin: say start or decide",
        ),
        Row("worker", 2, "say which app to run: --app module:name"),
        Row("worker --app bad_shop", 2, "say which app to run: --app module:name"),
        Row(
            "worker --app bad_shop:app --processes many", 2, "say --processes as a number, or auto"
        ),
    ],
    "A question, where nobody can be asked": [
        Row("runs terminate x {ada}", 2, "nobody can be asked here: say --yes"),
        Row("runs reset x --before t1.model {ada}", 2, "nobody can be asked here: say --yes"),
        Row("issuers revoke kid", 2, "nobody can be asked here: say --yes"),
    ],
    "Apps and agents": [
        Row("agents list --app bad_shp:app", 1, "There is no module 'bad_shp' in"),
        Row("agents list --app bad_shop:ap", 1, "It has no 'ap'. It has bad_shop:app"),
        Row("agents list --app bad_raises:app", 1, "raised KeyError. Mend the line"),
        Row("tools list --app bad_syntax:app", 1, "raised SyntaxError. Mend the line"),
        Row("agents list --app bad_exit:app", 1, "raised SystemExit. Mend the line"),
        Row("agents list --app bad_agent:app", 1, "Agent('No Name'). Names are a-z"),
        Row(
            "agents show suport --app bad_shop:app",
            5,
            "The agent 'suport'. This app does not define it. It has support",
        ),
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
        Row(
            "db status",
            1,
            "The store. No setting names it. Set RUNWARD_DATABASE_URL or pass --database-url",
        ),
        Row("runs list --tenant acme", 1, "database_url=, or set RUNWARD_DATABASE_URL"),
        Row("worker --app bad_shop:app", 1, "No setting names the store. Set RUNWARD_DATABASE_URL"),
        Row(
            "worker --app bad_shop:app --database-url postgres://h/d",
            1,
            "Temporal's address. No setting names one. Set TEMPORAL_ADDRESS",
        ),
        Row("db status --database-url nonsense", 1, "It is no DSN: it begins with postgresql://"),
        Row(
            "db status --database-url postgres://h:65536/d", 1, "Its port is no number up to 65535"
        ),
        Row("db print --after 9999", 1, "The migrations after '9999'. There are 0001 to"),
        Row(
            "runs show x {ada}",
            1,
            "The key file '.runward/dev.key'. No such file or directory. Make one",
        ),
        Row("runs show x {ada} --key-file broken.key", 1, "It is not an Ed25519 key"),
        Row("runs show x {ada} --key-file .", 1, "The key file '.'. Is a directory. Name another"),
        Row(
            "whoami {ada} --key-file none.key",
            1,
            "Make one: `runward issuers add PATH --create --tenant NAME`",
        ),
        Row(
            "runs show x {ada} --key-file good.key --profile none",
            1,
            "Profile 'none' not found. There is none. Check TEMPORAL_*",
        ),
        Row(
            "TEMPORAL_CONFIG_FILE=profiles.toml runs show x {ada} --key-file good.key --profile de",
            1,
            "Profile 'de' not found. There are 'default', 'dev'. Check TEMPORAL_* and profiles",
        ),
        Row(
            "TEMPORAL_PROFILE=none config list",
            1,
            "Profile 'none' not found. There is none. Check TEMPORAL_*",
        ),
        Row(
            "TEMPORAL_CONFIG_FILE=cut.toml config list",
            1,
            "TOML parse error at line 2, column 11. Check TEMPORAL_* and cut.toml",
            "of which nothing is shown, since it may have an API key",
        ),
        Row(
            "runs show x {ada} --key-file good.key --address http://localhost:7233",
            1,
            "It has the form of a link. Name it as host:port",
        ),
        Row(
            "RUNWARD_CONFIG_FILE=none.toml config list",
            1,
            "There is no such file. Correct or unset it",
        ),
        Row(
            "RUNWARD_CONFIG_FILE=wrong.toml config list",
            1,
            "The setting 'databse_url'. There is none of that name. Did you mean 'database_url'?",
        ),
        Row(
            "RUNWARD_CONFIG_FILE=wrong.toml config set user ada",
            1,
            "The setting 'databse_url'. There is none",
        ),
        Row(
            "RUNWARD_CONFIG_FILE=broken.key config set user ada",
            1,
            "The file 'broken.key'. Invalid statement",
        ),
        Row("config set database_url nonsense", 1, "It is no DSN: it begins with postgresql://"),
        Row("config set retention_steps_days many", 1, "It is no whole number"),
        Row("config set build_id 1/2", 1, "It is 1 to 64 characters, the first a letter"),
        Row(
            "config set temporal_ui_url localhost:8233", 1, "It is no link: it begins with http://"
        ),
        Row("RUNWARD_CONFIG_FILE=nul.toml whoami {ada}", 1, "'key_file'. It names no file: it is"),
        Row("config set sweep_every_s -1", 1, "It has to be at least 0.1"),
        Row("config set tag_key short", 1, "It has 5 characters, at least 16 are needed"),
        Row("RUNWARD_CODEC=nonsense config list", 1, "'nonsense' is no name of one, such as shop:"),
        Row("config get tenant", 5, "It has no value. Give it one: runward config set tenant"),
        Row("health", 1, "No setting names the file. Set RUNWARD_HEALTH_FILE or pass --file"),
        Row(
            "health --file none.json",
            1,
            "No worker has written it. Start one: `runward worker --health-file",
        ),
        Row("init", 1, "app.py is there already", "where there is one"),
        Row("init app.py/shop", 1, "'app.py/shop'. Not a directory. Name another"),
        Row("ticket inspect hello", 4, "not a signed token"),
    ],
    "No server": [
        Row(
            f"runs list --tenant acme {NO_STORE}",
            1,
            "It did not answer (ConnectionRefusedError). Try again [RW-STORE]",
        ),
        Row(f"db status {NO_STORE}", 1, "Start it, or correct RUNWARD_DATABASE_URL"),
        Row(f"db migrate {NO_STORE}", 1, "Start it, or correct RUNWARD_DATABASE_URL"),
        Row(
            "runs show x {ada} --key-file good.key --address 127.0.0.1:1",
            1,
            "Connection refused. Start `runward dev`, or correct TEMPORAL_ADDRESS [RW-TEMPORAL]",
        ),
    ],
}

# Tried against servers that answer.
SERVED: Section = {
    "Servers that answer": [
        Row(
            "runs list --database-url {empty}",
            1,
            "does not exist. Run `runward db migrate`",
            "where no schema is",
        ),
        Row("approvals list --database-url {empty}", 1, "does not exist. Run `runward db migrate`"),
        Row(
            "runs list --database-url {old}",
            1,
            'column "content_gone_at" does not exist. Run `runward db migrate`',
            "where the schema is an older release's",
        ),
        Row(
            "db status --database-url {newer}",
            1,
            "this version of runward does not know. Upgrade runward",
            "where it is a newer one's",
        ),
        Row("db migrate --database-url {newer}", 1, "does not know. Upgrade runward"),
        Row(
            "issuers add my.key --create --tenant acme --database-url {empty}",
            1,
            "does not exist. Run `runward db migrate`",
            "and no key is left",
        ),
        Row("runs list --database-url {other}", 1, 'database "none" does not exist'),
        Row("db status --database-url {other}", 1, 'database "none" does not exist'),
        Row("db status --database-url {password}", 1, "password authentication failed"),
        Row(
            "runs start support Hello --as ada --namespace nowhere",
            1,
            "Namespace nowhere is not found. Correct TEMPORAL_NAMESPACE",
        ),
        Row("runs show rw-none --as ada --namespace nowhere", 1, "Correct TEMPORAL_NAMESPACE"),
        Row("runs start Support Hello --as ada", 1, "A run of agent 'Support'. Names are a-z"),
        Row("runs start support {blank} --as ada", 1, "The prompt is empty"),
        Row(
            "TEMPORAL_TLS=true runs show rw-none --as ada",
            1,
            "It does not speak TLS. Correct TEMPORAL_TLS",
        ),
        Row(
            "RUNWARD_CODEC=bad_codec:codec runs start support Hello --as ada",
            1,
            "The codec 'bad_codec:codec'. It raised KeyError. Mend the line that its traceback",
            "below your own traceback",
        ),
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
        Row("issuers revoke none --yes", 5, "is registered. `runward issuers list` has those"),
    ],
}


def rows(section: Section) -> list[Row]:
    """Returns the rows of all its parts."""
    return [one for part in section.values() for one in part]
