// node-postgres as an application uses it. Prints one line of JSON for each step; the test compares the lines of
// a direct run with those of a guarded one. Connects as PGHOST, PGPORT, PGUSER and PGDATABASE say.
'use strict'
const { Client, Pool, Query } = require('pg')

const say = (name, value) => console.log(JSON.stringify([name, value]))
const failure = (error) => [error.code, error.severity, error.message, error.detail, error.table, error.constraint, error.position]

async function fails (promise) {
  try {
    await promise
    return 'did not fail'
  } catch (error) {
    return failure(error)
  }
}

// COPY without a further package: a query that answers CopyInResponse with rows and gathers CopyData.
class Copy extends Query {
  constructor (text, rows, refuse) {
    super(text)
    this.rows_ = rows
    this.refuse_ = refuse
    this.data = ''
  }

  handleCopyInResponse (connection) {
    for (const row of this.rows_) connection.sendCopyFromChunk(Buffer.from(row))
    if (this.refuse_) connection.sendCopyFail(this.refuse_)
    else connection.endCopyFrom()
  }

  handleCopyData (message) {
    this.data += message.chunk.toString()
  }
}

function copy (client, text, rows = [], refuse) {
  return new Promise((resolve, reject) => {
    const query = new Copy(text, rows, refuse)
    query.callback = (error, result) => (error ? reject(error) : resolve([result.command, result.rowCount, query.data]))
    client.query(query)
  })
}

async function main () {
  const client = new Client({ application_name: 'node' })
  await client.connect()
  const notices = []
  client.on('notice', (notice) => notices.push(notice.message))

  say('parameters', (await client.query('SELECT $1::int AS a, $2::text AS b, $3::jsonb AS c, $4::bytea AS d, $5::int[] AS e, $6::text AS f',
    [7, 'ü', { k: [1] }, Buffer.from([0, 1]), [1, 2], null])).rows)
  say('several statements', (await client.query('SELECT 1 AS one; SELECT 2 AS two')).map((r) => r.rows))
  const named = { name: 'by-id', text: 'SELECT name FROM items WHERE id = $1' }
  for (const id of [1, 2, 3]) say('prepared', (await client.query({ ...named, values: [id] })).rows)
  say('array rows', (await client.query({ text: 'SELECT id, name FROM items ORDER BY id LIMIT 2', rowMode: 'array' })).rows)

  say('a portal read by fours', (await client.query({ text: 'SELECT id FROM items ORDER BY id', rows: 4 })).rows.length)
  await client.query('BEGIN')
  await client.query('DECLARE c SCROLL CURSOR FOR SELECT id FROM items ORDER BY id')
  say('cursor', [(await client.query('FETCH 3 FROM c')).rows, (await client.query('FETCH BACKWARD 1 FROM c')).rows])
  await client.query('COMMIT')

  const batch = []
  for (let i = 0; i < 300; i++) batch.push(client.query('INSERT INTO scratch VALUES ($1, $2) RETURNING id', [i, 'row ' + i]))
  say('batch', (await Promise.all(batch)).reduce((sum, r) => sum + r.rows[0].id, 0))

  await client.query('BEGIN')
  await client.query("INSERT INTO scratch VALUES (1000, 'rolls back')")
  say('error in a transaction', await fails(client.query('INSERT INTO items VALUES (1, $1, 1)', ['again'])))
  say('aborted', await fails(client.query('SELECT 1')))
  await client.query('ROLLBACK')
  say('rolled back', (await client.query('SELECT count(*) FROM scratch')).rows)
  say('errors', [await fails(client.query('SELEC')), await fails(client.query('SELECT $1::int', ['x'])),
    await fails(client.query('SELECT * FROM nowhere WHERE id = $1', [1])), await fails(client.query('SELECT 1 / $1::int', [0]))])
  say('and on', (await client.query('SELECT 1 AS alive')).rows)

  say('copy in', await copy(client, 'COPY scratch FROM STDIN', ['2000\ttwo\n2001\tth', 'ree\n']))
  say('copy out', await copy(client, 'COPY (SELECT * FROM scratch WHERE id >= 2000 ORDER BY id) TO STDOUT'))
  say('copy that fails', await fails(copy(client, 'COPY scratch FROM STDIN', ['x\ty\n'])))
  say('copy given up', await fails(copy(client, 'COPY scratch FROM STDIN', ['1\ty\n'], 'given up')))

  const heard = new Promise((resolve) => client.on('notification', (n) => resolve([n.channel, n.payload])))
  await client.query('LISTEN channel')
  await client.query("NOTIFY channel, 'hello'")
  say('notification', await heard)
  await client.query("DO $$BEGIN RAISE NOTICE 'noticed'; END$$")
  say('notices', notices)

  const slow = fails(client.query('SELECT pg_sleep(20)'))
  const pool = new Pool({ max: 4 })
  const stop = async () => {
    const found = await pool.query('SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND wait_event = $2', ['node', 'PgSleep'])
    if (!found.rows.length) return setTimeout(stop, 30)
    new Client().cancel(client, client._getActiveQuery ? client._getActiveQuery() : client.activeQuery)
  }
  await stop()
  say('cancelled', await slow)
  say('alive', (await client.query('SELECT 1 AS alive')).rows)

  const sums = await Promise.all([...Array(60).keys()].map((i) => pool.query('SELECT $1::int * 2 AS x', [i])))
  say('pool', sums.map((r) => r.rows[0].x))
  await pool.end()
  say('large', (await client.query("SELECT length($1) AS sent, repeat('r', 3000000) AS got", ['p'.repeat(2000000)])).rows
    .map((r) => [r.sent, r.got.length]))
  await client.end()
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
