-- A small shop to be careless with: a few thousand rows with the kinds of columns that accidents happen to.
-- tools/run loads it into a throw-away server. The role clerk owns everything, as juniors' accounts do. The role bob
-- is the second person: he may decide on what others ask for, and for that he needs to read and write nothing.

\set ON_ERROR_STOP on
\set QUIET on
SET client_min_messages = warning;

CREATE ROLE clerk LOGIN PASSWORD 'clerk';
CREATE ROLE approvers NOLOGIN;
CREATE ROLE bob LOGIN PASSWORD 'bob' IN ROLE approvers;
CREATE DATABASE shop OWNER clerk;
\connect shop clerk

CREATE TABLE customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL
);

-- Orders are never deleted: a cancelled one keeps its row, and cron mails the customers of those that are live.
CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers ON DELETE CASCADE,
    status text NOT NULL CHECK (status IN ('draft', 'live', 'shipped', 'cancelled')),
    ordered_at timestamptz NOT NULL,
    deleted_at timestamptz
);
CREATE INDEX ON orders (customer_id);

CREATE TABLE order_lines (
    order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE,
    line integer NOT NULL,
    article text NOT NULL,
    quantity integer NOT NULL CHECK (quantity > 0),
    price numeric(10, 2) NOT NULL,
    PRIMARY KEY (order_id, line)
);

CREATE TABLE payments (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE,
    amount numeric(10, 2) NOT NULL,
    paid_at timestamptz NOT NULL
);
CREATE INDEX ON payments (order_id);

INSERT INTO customers (name, email, created_at)
SELECT first_name || ' ' || last_name,
       lower(first_name || '.' || last_name) || n || '@example.org',
       timestamptz '2024-01-01 08:00+00' + n * interval '11 hours'
FROM (SELECT n,
             (ARRAY['Ada', 'Ben', 'Clara', 'David', 'Eva', 'Farid', 'Grete', 'Hugo', 'Ines', 'Jan'])[1 + n % 10],
             (ARRAY['Adler', 'Baum', 'Conti', 'Dahl', 'Engel', 'Fuchs', 'Gold'])[1 + n % 7]
      FROM generate_series(1, 600) AS n) AS people (n, first_name, last_name);

INSERT INTO orders (customer_id, status, ordered_at, deleted_at)
SELECT 1 + (n * 7) % 600,
       status,
       ordered_at,
       CASE WHEN status = 'cancelled' THEN ordered_at + interval '2 days' END
FROM (SELECT n,
             (ARRAY['shipped', 'shipped', 'live', 'cancelled', 'shipped', 'draft'])[1 + n % 6],
             timestamptz '2024-03-01 09:00+00' + n * interval '5 hours'
      FROM generate_series(1, 2000) AS n) AS sales (n, status, ordered_at);

INSERT INTO order_lines (order_id, line, article, quantity, price)
SELECT orders.id,
       line,
       (ARRAY['kettle', 'lamp', 'chair', 'clock', 'rug', 'mug'])[1 + (orders.id + line) % 6],
       1 + (orders.id * line) % 4,
       5 + (orders.id * 31 + line * 17) % 190
FROM orders, generate_series(1, 1 + (orders.id % 3)::integer) AS line;

INSERT INTO payments (order_id, amount, paid_at)
SELECT orders.id, sum(quantity * price), orders.ordered_at + interval '1 day'
FROM orders JOIN order_lines ON order_lines.order_id = orders.id
WHERE orders.status IN ('live', 'shipped')
GROUP BY orders.id;

-- A function that hides a DELETE, as clean-up jobs have it.
CREATE FUNCTION purge_cancelled() RETURNS bigint LANGUAGE sql AS $$
    WITH gone AS (DELETE FROM orders WHERE status = 'cancelled' RETURNING 1) SELECT count(*) FROM gone
$$;

ANALYZE customers, orders, order_lines, payments;
