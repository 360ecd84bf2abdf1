"""Tenants never meet in the database: what its catalogue says, and what it does."""

import re
from contextlib import suppress

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.core import ids
from app.core.database import Database, ServiceRole
from tests.populated import Owner, Populated, tenant_tables

ROLES: list[ServiceRole] = ["luthier_app", "luthier_worker"]
DOORS = {
    "authenticate_key": "luthier_app",
    "claim_attempt": "luthier_worker",
    "find_webhook_endpoint": "luthier_app",
    "read_streams": "luthier_app",
}
SHARED = ["alembic_version", "installation", "job_transitions", "workers"]  # of no tenant
APPEND_ONLY = ["audit", "events", "dataset_versions"]


@pytest.fixture
async def databases(database: Database, worker_database: Database) -> dict[ServiceRole, Database]:
    return {"luthier_app": database, "luthier_worker": worker_database}


async def readable(owner: Owner, role: ServiceRole) -> list[str]:
    """The tenants' tables that the role may read."""
    query = "SELECT has_table_privilege($1, $2, 'SELECT')"
    return [t for t in await tenant_tables(owner) if await owner.fetchval(query, role, t)]


async def test_every_table_is_a_tenants_or_known_to_be_shared(owner: Owner) -> None:
    rows = await owner.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind IN ('r', 'p')"
    )
    every = {row["relname"] for row in rows}
    assert every == {*await tenant_tables(owner), *SHARED, "organizations"}


async def test_every_tenant_table_has_its_policy_enabled_and_forced(owner: Owner) -> None:
    for table in [*await tenant_tables(owner), "organizations"]:
        flags = await owner.fetchrow(
            "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = $1::regclass",
            table,
        )
        assert flags is not None
        assert tuple(flags) == (True, True), table
        column = "id" if table == "organizations" else "org_id"
        [policy] = await owner.fetch(
            "SELECT * FROM pg_policies WHERE tablename = $1 AND policyname = 'tenant'", table
        )
        assert policy["cmd"] == "ALL"
        assert policy["permissive"] == "PERMISSIVE"
        assert set(policy["roles"]) == set(ROLES)
        assert policy["qual"] == policy["with_check"]
        plain = re.sub(r"[\s()]|::text", "", policy["qual"])
        assert plain.startswith(f"{column}=SELECTNULLIFcurrent_setting'app.org_id',true,''"), plain


async def test_no_other_policy_is_for_the_services_roles_and_none_lets_all_through(
    owner: Owner,
) -> None:
    for policy in await owner.fetch("SELECT * FROM pg_policies WHERE schemaname = 'public'"):
        assert (policy["qual"] or "").strip("() ") != "true", policy
        assert (policy["with_check"] or "").strip("() ") != "true", policy
        if policy["policyname"] != "tenant":
            assert list(policy["roles"]) == ["luthier_doors"], policy


async def test_the_roles_own_nothing_and_can_neither_log_in_nor_bypass(owner: Owner) -> None:
    for role in [*ROLES, "luthier_doors"]:
        row = await owner.fetchrow(
            "SELECT rolcanlogin, rolbypassrls, rolsuper, rolcreaterole, rolcreatedb, rolreplication"
            " FROM pg_roles WHERE rolname = $1",
            role,
        )
        assert row is not None
        assert not any(row), role
        member_of = "SELECT count(*) FROM pg_auth_members WHERE member = $1::regrole"
        assert await owner.fetchval(member_of, role) == 0, role
        owned = await owner.fetch(
            "SELECT relname AS name FROM pg_class WHERE relowner = $1::regrole"
            " UNION ALL SELECT proname FROM pg_proc WHERE proowner = $1::regrole"
            " UNION ALL SELECT nspname FROM pg_namespace WHERE nspowner = $1::regrole",
            role,
        )
        expected = set(DOORS) if role == "luthier_doors" else set()
        assert {row["name"] for row in owned} == expected
        can_create = "SELECT has_schema_privilege($1, 'public', 'CREATE')"
        assert not await owner.fetchval(can_create, role), role


async def test_the_only_doors_are_the_known_ones(owner: Owner) -> None:
    doors = await owner.fetch(
        "SELECT oid, proname, proowner::regrole::text AS owner, proconfig FROM pg_proc"
        " WHERE prosecdef AND pronamespace NOT IN"
        " ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)"
    )
    assert {door["proname"] for door in doors} == set(DOORS)
    assert len(doors) == len(DOORS)
    for door in doors:
        assert door["owner"] == "luthier_doors"
        assert door["proconfig"] == ["search_path=public, pg_temp"]
        rights = await owner.fetch(
            "SELECT grantee::regrole::text AS who, privilege_type AS may"
            " FROM pg_proc, aclexplode(proacl) WHERE pg_proc.oid = $1",
            door["oid"],
        )
        others = {(right["who"], right["may"]) for right in rights} - {("luthier_doors", "EXECUTE")}
        assert others == {(DOORS[door["proname"]], "EXECUTE")}


async def test_views_and_truncate_open_no_way_round(owner: Owner) -> None:
    views = "SELECT count(*) FROM pg_class WHERE relkind IN ('v', 'm') AND relnamespace ="
    assert await owner.fetchval(views + " 'public'::regnamespace") == 0
    for role in ROLES:
        for table in [*await tenant_tables(owner), "organizations", *SHARED]:
            for right in ("TRUNCATE", "REFERENCES", "TRIGGER"):
                query = "SELECT has_table_privilege($1, $2, $3)"
                assert not await owner.fetchval(query, role, table, right), (role, table, right)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("table", APPEND_ONLY)
async def test_the_log_can_be_neither_changed_nor_deleted(
    table: str, role: ServiceRole, databases: dict[ServiceRole, Database], ours: Populated
) -> None:
    deletes = ["DELETE FROM"] if (table, role) != ("dataset_versions", "luthier_app") else []
    for verb in [*deletes, "UPDATE"]:
        statement = f"{verb} {table}" + (" SET org_id = org_id" if verb == "UPDATE" else "")
        with pytest.raises(DBAPIError, match="permission denied"):
            async with databases[role].transaction(ours.org_id) as session:
                await (await session.connection()).execute(text(statement))


@pytest.mark.parametrize("role", ROLES)
async def test_without_an_organization_no_row_is_visible_and_with_one_only_its_own(
    role: ServiceRole,
    databases: dict[ServiceRole, Database],
    owner: Owner,
    ours: Populated,
    theirs: Populated,
) -> None:
    for table in await readable(owner, role):
        count = text(f"SELECT count(*) FROM {table} WHERE org_id = :org")
        for setting, visible in (
            (None, False),
            ("", False),
            (theirs.org_id, False),
            (ours.org_id, True),
        ):
            async with databases[role].transaction(setting) as session:
                connection = await session.connection()
                found = int(await connection.scalar(count, {"org": ours.org_id}) or 0)
                everything = await connection.scalar(text(f"SELECT count(*) FROM {table}"))
            assert (found > 0) == visible, (table, setting)
            assert everything == 0 or setting in (ours.org_id, theirs.org_id), (table, setting)


@pytest.mark.parametrize("role", ROLES)
async def test_a_row_for_another_organization_is_refused(
    role: ServiceRole,
    databases: dict[ServiceRole, Database],
    owner: Owner,
    ours: Populated,
    theirs: Populated,
) -> None:
    tried = 0
    for table in await tenant_tables(owner):
        row = await owner.fetchval(
            f"SELECT to_jsonb(t)::text FROM {table} t WHERE org_id = $1 LIMIT 1", ours.org_id
        )
        assert row is not None, f"the test's tenant has no row in {table}"
        statements = {
            "INSERT": f"INSERT INTO {table} SELECT * FROM jsonb_populate_record(NULL::{table},"
            " CAST(:row AS jsonb) || jsonb_build_object('org_id', CAST(:org AS text)))",
            "UPDATE": f"UPDATE {table} SET org_id = :org WHERE CAST(:row AS text) IS NOT NULL",
        }
        for right, statement in statements.items():
            if not await owner.fetchval("SELECT has_table_privilege($1,$2,$3)", role, table, right):
                continue
            tried += 1
            with pytest.raises(DBAPIError, match="row-level security"):
                async with databases[role].transaction(ours.org_id) as session:
                    await (await session.connection()).execute(
                        text(statement), {"row": row, "org": theirs.org_id}
                    )
    assert tried >= 10


async def test_foreign_keys_cannot_point_across_tenants(
    owner: Owner, ours: Populated, theirs: Populated
) -> None:
    """Not even for the superuser; and the refusal does not tell whether the other's row exists."""
    links = await owner.fetch(
        "SELECT c.conrelid::regclass::text AS here, c.confrelid::regclass::text AS there,"
        " array_agg(a.attname::text ORDER BY k.n) AS columns FROM pg_constraint c"
        " CROSS JOIN unnest(c.conkey) WITH ORDINALITY k(num, n)"
        " JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.num"
        " WHERE c.contype = 'f' GROUP BY c.oid, 1, 2"
    )
    tables = await tenant_tables(owner)
    assert len(links) >= 12
    for link in links:
        assert link["here"] in tables
        assert link["columns"][0] == "org_id", dict(link)
        if link["there"] == "organizations":
            continue
        [column] = link["columns"][1:]
        foreign = await owner.fetchval(
            f"SELECT id FROM {link['there']} WHERE org_id = $1", theirs.org_id
        )
        refusals = []
        for id in (foreign, ids.new(ids.prefix_of(foreign))):
            one = f"(SELECT ctid FROM {link['here']} WHERE org_id = $2 LIMIT 1)"
            update = f"UPDATE {link['here']} SET {column} = $1 WHERE ctid = {one}"
            with pytest.raises(asyncpg.ForeignKeyViolationError) as refusal:
                await owner.execute(update, id, ours.org_id)
            refusals.append(str(refusal.value).replace(id, "ID"))
        assert refusals[0] == refusals[1], dict(link)


async def test_an_event_cannot_be_put_into_another_tenants_stream(
    database: Database, ours: Populated, theirs: Populated
) -> None:
    async with database.engine.connect() as connection:  # and roll back
        await connection.execute(
            text("SELECT set_config('app.org_id', :org, true)"), {"org": ours.org_id}
        )
        with suppress(DBAPIError):
            async with connection.begin_nested():
                await connection.execute(
                    text(
                        "INSERT INTO events (stream_id, seq, org_id, type, at, data)"
                        " VALUES (:stream, 1000000, :org, 'message', now(), '{}')"
                    ),
                    {"stream": theirs.ids["job"], "org": ours.org_id},
                )
        read = text("SELECT count(*) FROM read_streams(ARRAY[:stream], ARRAY[999999], 10)")
        assert await connection.scalar(read, {"stream": theirs.ids["job"]}) == 0
