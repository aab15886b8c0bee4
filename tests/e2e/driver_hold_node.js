// node-postgres with statements that a second person has to approve. Prints one line of JSON for each step; the test
// compares the lines of a direct run with those of a guarded one in which somebody approves all that waits. Connects as
// PGHOST, PGPORT, PGUSER and PGDATABASE say.
'use strict'
const { Client, Pool } = require('pg')

const say = (name, value) => console.log(JSON.stringify([name, value]))
const failure = (error) => [error.code, error.severity, error.message, error.detail, error.position]

async function fails (promise) {
  try {
    await promise
    return 'did not fail'
  } catch (error) {
    return failure(error)
  }
}

const brief = (result) => [result.command, result.rowCount, result.rows]

async function main () {
  const client = new Client({ options: '-c search_path=held', query_timeout: 30000 })
  await client.connect()
  say('simple', brief(await client.query("UPDATE jobs SET state = 'a'")))
  say('parameters', brief(await client.query('UPDATE jobs SET state = $1', ['ü'])))
  const named = { name: 'all', text: 'UPDATE jobs SET state = $1 WHERE true' }
  for (const value of ['x', 'y', 'z']) say('prepared', brief(await client.query({ ...named, values: [value] })))
  say('returning', brief(await client.query({ text: 'DELETE FROM jobs RETURNING id', rowMode: 'array' })))
  say('several', (await client.query("INSERT INTO jobs VALUES (1, 'n'); UPDATE jobs SET state = 'm'; SELECT 2 AS two")).map(brief))
  await client.query('BEGIN')
  await client.query("INSERT INTO log VALUES (1, 'kept')")
  say('in a transaction', brief(await client.query("UPDATE jobs SET state = 'in'")))
  await client.query('COMMIT')
  say('counted', brief(await client.query("UPDATE counted SET state = 'c' RETURNING id")))
  say('an error', await fails(client.query('UPDATE jobs SET id = $1::int / 0', [1])))
  say('sent ahead', (await Promise.all([client.query('SELECT 1 AS a'), client.query('DELETE FROM jobs'),
    client.query('SELECT $1::int AS b', [2])])).map(brief))
  await client.end()
  const pool = new Pool({ max: 4, options: '-c search_path=held' })
  say('pool', (await Promise.all([...Array(8).keys()].map((i) => pool.query("UPDATE told SET state = $1 WHERE true", ['row ' + i]))))
    .map((r) => r.rowCount))
  await pool.end()
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
