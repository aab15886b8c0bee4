--liquibase formatted sql
--changeset anna:2
\set ON_ERROR_STOP on
BEGIN;
DELETE FROM customers WHERE id = :'customer';
DELETE FROM order_lines
  -- WHERE order_id = 42
;
UPDATE settings SET version = 2; -- chaperone: allow no-unbounded-writes because settings has one row
ALTER TABLE orders
    DROP COLUMN note;
COMMIT;
--rollback DROP TABLE nothing;
COPY regions FROM STDIN;
1	DELETE FROM x;
\.
-- chaperone: allow no-data-loss because it was never used
SELECT 1;
