-- A database with one of everything that a backup must bring back exactly. It may be run once a database; the role
-- "Cajera Ñandú" is the server's and must be there.
CREATE EXTENSION hstore;
CREATE EXTENSION citext;
CREATE EXTENSION btree_gist;
CREATE EXTENSION pg_trgm;

CREATE SCHEMA "Más cosas";
CREATE SCHEMA "🔧";
COMMENT ON SCHEMA "🔧" IS 'tools';

-- Types
BEGIN;
CREATE TYPE mood AS ENUM ('sad', 'it''s ok', 'HAPPY');
ALTER TYPE mood ADD VALUE 'so-so' AFTER 'sad';
COMMIT;
CREATE TYPE "Más cosas"."Address" AS (street text, "Number" integer, tags text[]);
CREATE DOMAIN price AS numeric(12, 2) DEFAULT 0 CHECK (VALUE >= 0) CHECK (VALUE < 1e9);
CREATE DOMAIN code AS text COLLATE "C" NOT NULL CHECK (VALUE IN ('a', 'b', 'c"d'));
CREATE TYPE span AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE COLLATION "Más cosas"."digits" (provider = icu, locale = 'en-u-kn-true');

-- Every type of value, with the values that are easily lost
CREATE TABLE every_type (
    id integer PRIMARY KEY,
    a_bool boolean, a_small smallint, a_big bigint, a_real real, a_double double precision, a_numeric numeric,
    a_money money, a_text text, a_varchar varchar(9), a_char char(6), one_char "char", a_name name, a_bytea bytea,
    a_date date, a_time time, a_timetz timetz, a_timestamp timestamp, a_timestamptz timestamptz, an_interval interval,
    a_json json, a_jsonb jsonb, a_xml xml, a_uuid uuid, an_inet inet, a_cidr cidr, a_mac macaddr, bits bit varying,
    a_tsvector tsvector, a_tsquery tsquery, a_point point, a_box box, a_polygon polygon,
    a_range int4range, a_multirange datemultirange, a_span span, texts text[], cube integer[][][], moods mood[],
    a_mood mood, an_address "Más cosas"."Address", addresses "Más cosas"."Address"[], a_price price, a_code code,
    pairs hstore, insensitive citext, a_class regclass, a_path path, an_lsn pg_lsn, odd text COLLATE "Más cosas"."digits"
);
INSERT INTO every_type VALUES
    (1, true, -32768, -9223372036854775808, 'NaN', '-0', 'NaN', -1.5, E'tab\tline\nback\\slash ''quote'' \u00f1 🔧', '',
     'ab', '"', 'name', '\x00ff5c27', '4713-01-01 BC', '24:00', '12:00+05:45', '-infinity', 'infinity',
     '1 mon -30 days 00:00:00.000001', '{"b": 1,  "b": 2, "a": 1.0}', '{"b": 1.00, "a": [null, "\u00f1"]}',
     '<a b="1"><!-- c --></a>', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '10.0.0.1/8', '10.0.0.0/8',
     '08:00:2b:01:02:03', B'101', 'fat:2A cat:1', 'fat & !cat', '(1e-300,-0)', '((0,0),(1,1))', '((0,0),(1,1),(2,0))',
     'empty', '{[2020-01-01,2020-02-01)}', '[1.5,)', ARRAY['', NULL, 'NULL', '{}', 'a,b', '"'], '[2:2][1:1][0:1]={{{1,2}}}',
     '{sad,"it''s ok"}', 'HAPPY', ROW('x, "y"', NULL, '{}'), ARRAY[ROW(NULL, 1, '{a}')::"Más cosas"."Address"], 1.50, 'a',
     'a=>NULL, b=>"c,d"', 'CaSe', 'public.every_type', '[(0,0),(1,1)]', '0/16B3748', 'a10'),
    (2, false, 0, 0, '1e-45', '4.9406564584124654e-324', 1.000, 0, NULL, NULL, NULL, NULL, NULL, '', 'infinity', NULL,
     NULL, NULL, '2020-03-08 02:30:00.123456+13:45', '-1 year', 'null', 'null', NULL, NULL, '::1', NULL, NULL, '',
     '', NULL, NULL, NULL, NULL, '(,)', '{}', NULL, '{}', NULL, '{}', 'so-so', NULL, NULL, NULL, 'b', '', '', NULL, NULL,
     NULL, 'A10'),
    (3, NULL, NULL, NULL, '-Infinity', 0.1::float4, '-Infinity', NULL, repeat('long ñ ', 9000), NULL, 'ab    ', NULL, NULL,
     decode(repeat('00c3', 9000), 'hex'), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'c"d', NULL, NULL,
     NULL, NULL, NULL, NULL),
    (4, NULL, NULL, NULL, 'Infinity', '0.1', 1e-20, NULL, 'NULL', '\N', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL, NULL, NULL, NULL, NULL, 'a', NULL, NULL, NULL, NULL, NULL, '\.');

-- Shapes of tables
CREATE TABLE tenant (id serial PRIMARY KEY, slug varchar(20) NOT NULL UNIQUE, name text, active boolean DEFAULT true);
INSERT INTO tenant (slug, name) SELECT 'shop-' || i, 'Shop ' || i FROM generate_series(1, 20) AS i;
CREATE TABLE sale (
    id bigint GENERATED ALWAYS AS IDENTITY (START 5 INCREMENT 5) PRIMARY KEY,
    tenant_id integer NOT NULL REFERENCES tenant ON DELETE CASCADE,
    dropped text,
    status varchar(9) DEFAULT 'open' CHECK (status IN ('open', 'paid', 'void')),
    net numeric(12, 2) NOT NULL, tax numeric(12, 2) NOT NULL,
    total numeric(12, 2) GENERATED ALWAYS AS (net + tax) STORED,
    datetime timestamptz NOT NULL DEFAULT '2024-01-01 00:00+00'
);
ALTER TABLE sale DROP COLUMN dropped, ADD COLUMN note text DEFAULT 'added "later"';
INSERT INTO sale (tenant_id, net, tax) SELECT 1 + i % 20, i, i * 0.21 FROM generate_series(1, 500) AS i;
CREATE INDEX sale_by_time ON sale (tenant_id, datetime DESC NULLS LAST) INCLUDE (status);
CREATE INDEX "open sales" ON sale USING btree (lower(status)) WHERE status IN ('open', 'paid') AND note IS NOT NULL;
CREATE INDEX sale_note ON sale USING gin (note gin_trgm_ops);
CREATE STATISTICS sale_stats (dependencies) ON tenant_id, status FROM sale;
ALTER TABLE sale ALTER COLUMN note SET STATISTICS 500, ALTER COLUMN note SET STORAGE EXTERNAL;
COMMENT ON TABLE sale IS 'It''s a sale';
COMMENT ON COLUMN sale.note IS 'free text';
CREATE TABLE by_default (id integer GENERATED BY DEFAULT AS IDENTITY, t text) WITH (fillfactor = 70);
INSERT INTO by_default (t) VALUES ('x'), ('y');
CREATE TABLE no_key (a integer, b text);
INSERT INTO no_key VALUES (1, 'same'), (1, 'same'), (NULL, NULL);
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES;
INSERT INTO no_columns DEFAULT VALUES;
CREATE TABLE no_rows (id integer PRIMARY KEY, t text UNIQUE);
CREATE UNLOGGED TABLE unlogged (id integer PRIMARY KEY);
INSERT INTO unlogged VALUES (1), (2);
CREATE TABLE "Más cosas"."Tabla ""rara"" 🔧" ("Sí" integer PRIMARY KEY, "select" text, "a.b" text);
INSERT INTO "Más cosas"."Tabla ""rara"" 🔧" VALUES (1, 'x', 'y');
CREATE TABLE "🔧"."." (";" text);
INSERT INTO "🔧"."." VALUES ($$\.$$), (E'\\N');

CREATE TABLE parent (id integer PRIMARY KEY, a text CHECK (a <> ''));
CREATE TABLE child (b text) INHERITS (parent);
ALTER TABLE parent ADD COLUMN c text DEFAULT 'c';
INSERT INTO parent VALUES (1, 'a');
INSERT INTO child VALUES (2, 'a', 'b', 'c');

CREATE TABLE move (id bigint, day date, kind text, tenant_id integer REFERENCES tenant, PRIMARY KEY (id, day, kind))
    PARTITION BY RANGE (day);
CREATE TABLE move_2023 PARTITION OF move FOR VALUES FROM (MINVALUE) TO ('2024-01-01');
CREATE TABLE move_2024 PARTITION OF move FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') PARTITION BY LIST (kind);
CREATE TABLE "Más cosas".move_in PARTITION OF move_2024 FOR VALUES IN ('in', 'it''s');
CREATE TABLE move_out (kind text NOT NULL, extra_dropped text, tenant_id integer, day date NOT NULL, id bigint NOT NULL);
ALTER TABLE move_out DROP COLUMN extra_dropped;
ALTER TABLE move_2024 ATTACH PARTITION move_out FOR VALUES IN ('out');
CREATE TABLE move_rest PARTITION OF move DEFAULT;
INSERT INTO move SELECT i, '2023-06-01'::date + i * 40, (ARRAY['in', 'out'])[1 + i % 2], 1 FROM generate_series(1, 18) AS i;
CREATE INDEX move_by_day ON move (day);
CREATE TABLE hashed (id integer) PARTITION BY HASH (id);
CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO hashed SELECT generate_series(1, 50);

CREATE TABLE hen (id integer PRIMARY KEY, egg integer NOT NULL);
CREATE TABLE egg (id integer PRIMARY KEY, hen integer NOT NULL REFERENCES hen DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE hen ADD FOREIGN KEY (egg) REFERENCES egg DEFERRABLE INITIALLY DEFERRED;
BEGIN;
INSERT INTO hen VALUES (1, 2);
INSERT INTO egg VALUES (2, 1);
COMMIT;
CREATE TABLE booking (room integer, during tstzrange, EXCLUDE USING gist (room WITH =, during WITH &&));
INSERT INTO booking VALUES (1, '[2024-01-01,2024-01-02)'), (1, '[2024-01-02,2024-01-03)');
ALTER TABLE tenant ADD CONSTRAINT not_checked CHECK (length(name) > 6) NOT VALID;
ALTER TABLE no_key REPLICA IDENTITY FULL;

-- Code
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    NEW.note := coalesce(NEW.note, 'it''s $$new$$');
    RETURN NEW;
END $body$;
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE OF net ON sale FOR EACH ROW WHEN (NEW.net > 0) EXECUTE FUNCTION stamp();
CREATE TRIGGER never BEFORE UPDATE ON tenant FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
ALTER TABLE tenant DISABLE TRIGGER never;
CREATE TRIGGER moved AFTER INSERT ON move FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
ALTER TABLE move_2023 DISABLE TRIGGER moved;
CREATE FUNCTION twice(n integer, times integer DEFAULT 2) RETURNS integer IMMUTABLE BEGIN ATOMIC SELECT n * times; END;
CREATE FUNCTION twice(n text) RETURNS text LANGUAGE sql STRICT AS 'SELECT n || n';
CREATE PROCEDURE nothing() LANGUAGE plpgsql AS 'BEGIN END';
CREATE AGGREGATE product(numeric) (SFUNC = numeric_mul, STYPE = numeric, INITCOND = 1);
CREATE OPERATOR === (LEFTARG = integer, RIGHTARG = integer, FUNCTION = int4eq);
CREATE CAST (integer AS price) WITH INOUT;
CREATE VIEW open_sale AS SELECT s.*, t.name AS shop FROM sale s JOIN tenant t ON t.id = s.tenant_id
    WHERE s.status IN ('open', 'paid') AND (s.net > 1 OR s.tax BETWEEN 0 AND 5);
CREATE VIEW active WITH (security_barrier) AS SELECT * FROM tenant WHERE active WITH CASCADED CHECK OPTION;
CREATE RULE no_delete AS ON DELETE TO open_sale DO INSTEAD NOTHING;
CREATE MATERIALIZED VIEW totals AS SELECT tenant_id, sum(total) AS total FROM sale GROUP BY 1;
CREATE UNIQUE INDEX totals_key ON totals (tenant_id);
CREATE MATERIALIZED VIEW not_yet AS SELECT 1 AS one WITH NO DATA;
CREATE FUNCTION on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER on_ddl ON ddl_command_start WHEN TAG IN ('CREATE SERVER') EXECUTE FUNCTION on_ddl();
ALTER EVENT TRIGGER on_ddl ENABLE ALWAYS;
CREATE SEQUENCE "Más cosas".never_used START 7;
CREATE SEQUENCE down INCREMENT -2 MAXVALUE 100 START 100 MINVALUE 1;
SELECT nextval('down'), nextval('down');
CREATE SEQUENCE round MAXVALUE 3 CYCLE;
SELECT nextval('round'), nextval('round');
CREATE SEQUENCE set_not_called;
SELECT setval('set_not_called', 40, false);
CREATE TEXT SEARCH CONFIGURATION simple_copy (COPY = simple);
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER nowhere OPTIONS (host 'x');
CREATE FOREIGN TABLE far_away (id integer) SERVER elsewhere;
CREATE PUBLICATION shop FOR TABLE sale, tenant;

-- Rights
ALTER TABLE sale ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY mine ON sale FOR SELECT TO "Cajera Ñandú" USING (tenant_id IN (1, 2) AND status <> 'void');
GRANT SELECT, INSERT ON sale TO "Cajera Ñandú" WITH GRANT OPTION;
GRANT UPDATE (note) ON sale TO PUBLIC;
GRANT USAGE ON SCHEMA "🔧" TO "Cajera Ñandú";
REVOKE EXECUTE ON FUNCTION twice(text) FROM PUBLIC;
ALTER TABLE no_rows OWNER TO "Cajera Ñandú";
ALTER DEFAULT PRIVILEGES IN SCHEMA "🔧" GRANT SELECT ON TABLES TO "Cajera Ñandú";

-- Large objects: one with a hole, an empty one, a long one
SELECT lo_from_bytea(90001, 'first'), lo_put(90001, 10000, 'after a hole');
SELECT lo_create(90002);
SELECT lo_from_bytea(90003, decode(repeat('00ff27', 20000), 'hex'));
GRANT SELECT ON LARGE OBJECT 90003 TO "Cajera Ñandú";
COMMENT ON LARGE OBJECT 90002 IS 'empty';
