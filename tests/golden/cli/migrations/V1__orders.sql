-- flyway:executeInTransaction=true
CREATE TABLE ${schema}.orders (
    id   int PRIMARY KEY,
    note text
);
INSERT INTO ${schema}.orders VALUES (1, 'a;b'), (2, $$c;d$$);
CREATE INDEX orders_note ON ${schema}.orders (note);
CREATE INDEX customers_name ON ${schema}.customers (name);
