"""asyncpg, which speaks the protocol by itself: binary formats, prepared statements everywhere, Flush instead of Sync."""

import asyncio
import sys
from datetime import datetime, timezone
from pathlib import Path

import asyncpg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import processes
from support.e2e import EndToEnd, main


class Asyncpg(EndToEnd):
    def each(self, body, **options):
        def play(target):
            async def go():
                connection = await asyncpg.connect(host=target.host, port=target.port, user="postgres",
                                                   database="postgres",
                                                   timeout=15 * processes.PATIENCE, **options)
                try:
                    return await asyncio.wait_for(body(connection), 30 * processes.PATIENCE)
                finally:
                    await connection.close()

            return asyncio.run(go())

        return self.same(play, reset=True)

    def test_parameters_of_many_types(self):
        async def body(c):
            return tuple(await c.fetchrow(
                "SELECT $1::int, $2::text, $3::bytea, $4::timestamptz, $5::int[], $6::numeric, $7::text", 7, "\u00fc",
                b"\0\1", datetime(2024, 2, 29, tzinfo=timezone.utc), [1, None, 3], 12, None))

        self.assertEqual((7, "\u00fc"), self.each(body)[:2])

    def test_prepared_statements_and_their_cache(self):
        async def body(c):
            statement = await c.prepare("SELECT name FROM items WHERE id = $1")
            names = [await statement.fetchval(i) for i in range(1, 6)]
            for i in range(150):  # more than the cache holds: old ones are closed
                assert await c.fetchval(f"SELECT {i}") == i
            return names, [str(a) for a in statement.get_attributes()]

        self.each(body)

    def test_batches(self):
        async def body(c):
            await c.executemany("INSERT INTO scratch VALUES ($1, $2)", [(i, f"row {i}") for i in range(2000)])
            try:
                await c.executemany("INSERT INTO items VALUES ($1, $2, 1)", [(200, "x"), (1, "y"), (201, "z")])
            except asyncpg.UniqueViolationError as error:
                return str(error), await c.fetchval("SELECT count(*) FROM scratch"), \
                    await c.fetchval("SELECT count(*) FROM items")

        self.assertEqual((2000, 20), self.each(body)[1:])

    def test_cursors(self):
        async def body(c):
            async with c.transaction():
                rows = [r[0] async for r in c.cursor("SELECT id FROM items ORDER BY id", prefetch=3)]
                cursor = await c.cursor("SELECT id FROM items ORDER BY id")
                first = [r[0] for r in await cursor.fetch(4)]
                await cursor.forward(2)
                return rows, first, tuple(await cursor.fetchrow())

        self.assertEqual((list(range(1, 21)), [1, 2, 3, 4], (7,)), self.each(body))

    def test_transactions(self):
        async def body(c):
            try:
                async with c.transaction(isolation="serializable"):
                    await c.execute("INSERT INTO scratch VALUES (1, 'x')")
                    async with c.transaction():
                        await c.execute("SELECT 1 / 0")
            except asyncpg.DivisionByZeroError as error:
                return str(error), await c.fetchval("SELECT count(*) FROM scratch"), c.is_in_transaction()

        self.assertEqual((0, False), self.each(body)[1:])

    def test_copy(self):
        async def body(c):
            await c.copy_records_to_table("scratch", records=[(i, f"r{i}") for i in range(5000)])
            out = self.directory / "asyncpg.csv"
            status = await c.copy_from_query("SELECT * FROM scratch ORDER BY id", output=str(out), format="csv")
            back = await c.copy_to_table("scratch", source=str(out), format="csv")
            try:
                await c.copy_records_to_table("items", records=[(1, "again", 1)])
            except asyncpg.UniqueViolationError as error:
                return status, back, str(error), out.read_text()[:40], await c.fetchval("SELECT count(*) FROM scratch")

        self.assertEqual(10000, self.each(body)[-1])

    def test_cancel_by_timeout_and_by_task(self):
        async def body(c):
            outcomes = []
            try:
                await c.fetch("SELECT pg_sleep(20)", timeout=0.3)
            except asyncio.TimeoutError:
                outcomes.append("timeout")
            outcomes.append(await c.fetchval("SELECT 'alive'"))
            task = asyncio.ensure_future(c.fetch("SELECT pg_sleep(20)"))
            await asyncio.sleep(0.2)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                outcomes.append("cancelled")
            outcomes.append(await c.fetchval("SELECT 'alive'"))
            return outcomes

        self.assertEqual(["timeout", "alive", "cancelled", "alive"], self.each(body))

    def test_listeners_and_notices(self):
        async def body(c):
            heard, notices = asyncio.Queue(), []
            c.add_log_listener(lambda _, message: notices.append(message.message))
            await c.add_listener("channel", lambda _c, _pid, channel, payload: heard.put_nowait((channel, payload)))
            await c.execute("NOTIFY channel, 'own'")
            self.cluster.sql("NOTIFY channel, 'other'")
            await c.execute("DO $$BEGIN RAISE WARNING 'careful'; END$$")
            return [await heard.get(), await heard.get()], notices

        self.assertEqual(([("channel", "own"), ("channel", "other")], ["careful"]), self.each(body))

    def test_errors_keep_their_fields(self):
        async def body(c):
            fields = []
            for sql in ("SELECT * FROM nowhere", "INSERT INTO items VALUES (1, 'a', 1)", "SELEC"):
                try:
                    await c.fetch(sql)
                except asyncpg.PostgresError as error:
                    fields.append(error.as_dict())
            return fields

        self.assertEqual(3, len(self.each(body)))

    def test_a_pool(self):
        def play(target):
            async def go():
                async with asyncpg.create_pool(host=target.host, port=target.port, user="postgres",
                                               database="postgres", min_size=2, max_size=6) as pool:
                    async def one(i):
                        return await pool.fetchval("SELECT $1::int + count(*)::int FROM items", i)

                    return await asyncio.gather(*(one(i) for i in range(200)))

            return asyncio.run(go())

        self.assertEqual([i + 20 for i in range(200)], self.same(play))

    def test_simple_protocol_scripts(self):
        async def body(c):
            return await c.execute("CREATE TEMP TABLE t (i int); INSERT INTO t VALUES (1), (2); SELECT * FROM t")

        self.assertEqual("SELECT 2", self.each(body))


if __name__ == "__main__":
    main()
