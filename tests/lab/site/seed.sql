-- Fills an empty shop: 20 tenants, two years of purchases and :sales sales with one to three lines each.
--     psql -v ON_ERROR_STOP=1 -v sales=100000 -f seed.sql      (sales defaults to 100000)
-- About 1 kB a sale: 100000 sales are 104 MB in 4 s, 2000000 are 1.96 GB in 75 s.
-- The same number of sales gives the same rows, always: hashes of row numbers take the place of random().
\set ON_ERROR_STOP on
\if :{?sales} \else \set sales 100000 \endif
\set tenants 20
\set products 60
\set customers 50
\set purchases 40

BEGIN;
SET LOCAL TimeZone = 'UTC';
SET LOCAL work_mem = '128MB';
-- No triggers and no foreign key checks meanwhile; what they would have written is written below.
SET LOCAL session_replication_role = replica;

-- A number from 0 to n - 1 that depends on i and on what it is for (salt).
CREATE FUNCTION pg_temp.pick(i bigint, salt int, n int) RETURNS int LANGUAGE sql IMMUTABLE AS
$$ SELECT ((hashint8extended(i, salt) & 9223372036854775807) % n)::int $$;

-- The moment of row i of n, evenly from two years before the seed's "today".
CREATE FUNCTION pg_temp.moment(i bigint, n bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS
$$ SELECT timestamptz '2026-01-19 20:00:00+00' - interval '1 second' * ((n - i) * 63072000 / n) $$;

\echo Seeding tenants and products
INSERT INTO tenant (id, slug, name, owner_email, active, created_at, updated_at)
SELECT i, replace(lower(town), ' ', '-'), 'Ferretería ' || town,
       'owner@' || replace(lower(town), ' ', '-') || '.test', i <> :tenants, founded, founded
FROM unnest(ARRAY['Tandil', 'Azul', 'Olavarria', 'Balcarce', 'Necochea', 'Ayacucho', 'Rauch', 'Benito Juarez',
                  'Lobos', 'Chivilcoy', 'Junin', 'Pergamino', 'Dolores', 'Maipu', 'Bolivar', 'Saladillo',
                  'Las Flores', 'Tres Arroyos', 'Coronel Suarez', 'Pigue']) WITH ORDINALITY AS t(town, i),
     LATERAL (SELECT timestamptz '2024-01-01 09:00:00+00' + interval '1 day' * i) f(founded);

INSERT INTO tenant_setting
SELECT t.id, s.key, s.value FROM tenant t,
       (VALUES ('currency', 'ARS'), ('timezone', 'America/Argentina/Buenos_Aires'), ('receipt_by_mail', 'yes')) s(key, value);

INSERT INTO app_user (tenant_id, email, full_name, role, created_at)
SELECT t.id, r.role || '@' || t.slug || '.test', initcap(r.role) || ' of ' || t.name, r.role::user_role, t.created_at
FROM tenant t, (VALUES ('owner'), ('seller'), ('readonly')) r(role) ORDER BY t.id, r.role;

CREATE TEMP TABLE kind ON COMMIT DROP AS
SELECT ordinality - 1 AS i, split_part(row, '|', 1) AS category, split_part(row, '|', 2) AS name,
       split_part(row, '|', 3)::numeric AS price
FROM unnest(ARRAY[
    'Hand tools|Claw hammer|18.50', 'Hand tools|Screwdriver|6.20', 'Hand tools|Pliers|12.80',
    'Hand tools|Adjustable wrench|16.40', 'Power tools|Drill|89.00', 'Power tools|Angle grinder|74.50',
    'Power tools|Jigsaw|66.90', 'Fasteners|Wood screws|3.10', 'Fasteners|Wall plugs|2.40',
    'Fasteners|Hex bolts|4.70', 'Plumbing|PVC pipe|7.60', 'Plumbing|Ball valve|9.90', 'Plumbing|Tap|24.00',
    'Electrical|Copper cable|15.30', 'Electrical|Socket|5.50', 'Electrical|Circuit breaker|13.70',
    'Paint|Wall paint|32.00', 'Paint|Brush|4.10', 'Paint|Roller|7.90', 'Paint|Sandpaper|1.80'
]) WITH ORDINALITY AS k(row, ordinality);

INSERT INTO category (tenant_id, name)
SELECT t.id, c.category FROM tenant t, (SELECT category, min(i) AS i FROM kind GROUP BY 1) c ORDER BY t.id, c.i;

INSERT INTO supplier (tenant_id, name, email)
SELECT t.id, 'Wholesale ' || n, 'sales' || n || '@wholesale.test' FROM tenant t, generate_series(1, 5) n ORDER BY t.id, n;

INSERT INTO product (id, tenant_id, category_id, supplier_id, sku, name, price, created_at, updated_at)
SELECT (t.id - 1) * :products + p, t.id, c.id, (t.id - 1) * 5 + 1 + p % 5, format('SKU-%s', lpad(p::text, 4, '0')),
       k.name || (ARRAY[', small', ', medium', ', large'])[1 + (p - 1) / 20],
       round(k.price * (1 + (p - 1) / 20 * 0.4) * (95 + pg_temp.pick(t.id * 1000 + p, 1, 11)) / 100, 2), t.created_at, t.created_at
FROM tenant t, generate_series(1, :products) p
JOIN kind k ON k.i = (p - 1) % 20
JOIN category c ON c.name = k.category WHERE c.tenant_id = t.id;

INSERT INTO product_price (product_id, price, valid_from) SELECT id, price, created_at FROM product ORDER BY id;

INSERT INTO customer (id, tenant_id, name, email, phone, created_at, updated_at)
SELECT (t.id - 1) * :customers + n, t.id,
       (ARRAY['Ana', 'Bruno', 'Carla', 'Diego', 'Elena', 'Fabio', 'Gloria', 'Hugo', 'Irene', 'Jorge'])[1 + n % 10] || ' ' ||
       (ARRAY['Acosta', 'Benitez', 'Castro', 'Diaz', 'Ferreyra'])[1 + n / 10],
       'customer' || n || '@' || t.slug || '.test', '+54 249 4' || lpad((t.id * 997 + n * 31)::text, 6, '0'), t.created_at, t.created_at
FROM tenant t, generate_series(0, :customers - 1) n;

\echo Seeding purchases
INSERT INTO purchase_line (id, tenant_id, purchase_id, product_id, quantity, unit_cost)
SELECT (b - 1) * 3 + n, t, b, (t - 1) * :products + 1 + pg_temp.pick(b * 3 + n, 2, :products), 20 + pg_temp.pick(b * 3 + n, 3, 80), 0
FROM generate_series(1, :tenants * :purchases) b, LATERAL (SELECT 1 + (b - 1) % :tenants) x(t), generate_series(1, 3) n;
UPDATE purchase_line l SET unit_cost = round(p.price * 0.6, 2) FROM product p WHERE p.id = l.product_id;

INSERT INTO purchase (id, tenant_id, supplier_id, datetime, total)
SELECT purchase_id, min(tenant_id), (min(tenant_id) - 1) * 5 + 1 + purchase_id % 5,
       pg_temp.moment(purchase_id, :tenants * :purchases), sum(subtotal)
FROM purchase_line GROUP BY purchase_id ORDER BY purchase_id;

INSERT INTO stock_move (tenant_id, product_id, kind, quantity, purchase_line_id, moved_at)
SELECT l.tenant_id, l.product_id, 'purchase', l.quantity, l.id, b.datetime
FROM purchase_line l JOIN purchase b ON b.id = l.purchase_id ORDER BY l.id;

INSERT INTO finance_ledger (tenant_id, kind, amount, purchase_id, concept, datetime)
SELECT tenant_id, 'expense', total, id, 'Purchase ' || id, datetime FROM purchase ORDER BY id;

\echo Seeding :sales sales
INSERT INTO sale_line (id, tenant_id, sale_id, product_id, quantity, unit_price)
SELECT (s - 1) * 3 + n, p.tenant_id, s, p.id, 1 + pg_temp.pick(s * 3 + n, 4, 4), p.price
FROM generate_series(1, :sales::bigint) s
CROSS JOIN generate_series(1, 1 + pg_temp.pick(s, 5, 3)) n
JOIN product p ON p.id = pg_temp.pick(s, 6, :tenants) * :products + 1 + pg_temp.pick(s * 3 + n, 7, :products);

INSERT INTO sale (id, tenant_id, customer_id, datetime, status, total, updated_at)
SELECT s, t, CASE WHEN pg_temp.pick(s, 8, 3) > 0 THEN (t - 1) * :customers + pg_temp.pick(s, 9, :customers) END,
       pg_temp.moment(s, :sales),
       CASE WHEN d < 2 THEN 'cancelled' WHEN d < 6 THEN 'confirmed' ELSE 'paid' END::sale_status,
       total, pg_temp.moment(s, :sales)
FROM (SELECT sale_id AS s, min(tenant_id) AS t, sum(subtotal) AS total, pg_temp.pick(sale_id, 10, 100) AS d
      FROM sale_line GROUP BY sale_id ORDER BY sale_id) x;

\echo Seeding stock, payments and the ledger
INSERT INTO stock_move (tenant_id, product_id, kind, quantity, sale_line_id, moved_at)
SELECT l.tenant_id, l.product_id, m.kind, m.sign * l.quantity, l.id, s.datetime
FROM sale_line l JOIN sale s ON s.id = l.sale_id
JOIN (VALUES ('sale'::move_kind, -1), ('return', 1)) m(kind, sign) ON m.kind = 'sale' OR s.status = 'cancelled'
ORDER BY l.id, m.kind;

INSERT INTO product_stock (product_id, tenant_id, initial, quantity, updated_at)
SELECT p.id, p.tenant_id, greatest(0, -coalesce(moved, 0)) + kept, greatest(0, coalesce(moved, 0)) + kept, p.created_at
FROM product p
LEFT JOIN (SELECT product_id, sum(quantity) AS moved FROM stock_move GROUP BY 1) m ON m.product_id = p.id,
LATERAL (SELECT 40 + pg_temp.pick(p.id, 11, 160)) k(kept) ORDER BY p.id;

INSERT INTO sale_payment (id, tenant_id, sale_id, method, amount, paid_at)
SELECT id, tenant_id, id, (enum_range(NULL::payment_method))[1 + pg_temp.pick(id, 12, 4)], total, datetime
FROM sale WHERE status = 'paid' ORDER BY id;

INSERT INTO finance_ledger (tenant_id, kind, amount, payment_id, concept, datetime)
SELECT tenant_id, 'income', amount, id, 'Sale ' || sale_id, paid_at FROM sale_payment ORDER BY id;

-- Rows were given their numbers: the next one must follow them.
\o /dev/null
SELECT format('SELECT setval(%L, (SELECT coalesce(max(id), 1) FROM %I))', pg_get_serial_sequence(table_name, 'id'), table_name)
FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'id' \gexec
\o
COMMIT;

\echo Vacuuming
VACUUM ANALYZE;
SELECT count(*) AS sales, max(datetime) AS newest, pg_size_pretty(pg_database_size(current_database())) AS size FROM sale;
