-- The shop's database. Money is numeric(12,2), quantities are whole pieces.
-- Rows that belong to a shop carry its tenant_id.
BEGIN;

CREATE TYPE user_role AS ENUM ('owner', 'seller', 'readonly');
CREATE TYPE sale_status AS ENUM ('draft', 'confirmed', 'paid', 'cancelled');
CREATE TYPE payment_method AS ENUM ('cash', 'card', 'transfer', 'account');
CREATE TYPE move_kind AS ENUM ('purchase', 'sale', 'return', 'adjustment');
CREATE TYPE ledger_kind AS ENUM ('income', 'expense');

CREATE TABLE schema_version (
    version     text PRIMARY KEY,
    applied_at  timestamptz NOT NULL DEFAULT now()
);

-- Who uses the application

CREATE TABLE tenant (
    id          serial PRIMARY KEY,
    slug        text NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9-]+$'),
    name        text NOT NULL,
    owner_email text NOT NULL,
    active      boolean NOT NULL DEFAULT true,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE tenant_setting (
    tenant_id   int NOT NULL REFERENCES tenant,
    key         text NOT NULL,
    value       text NOT NULL,
    PRIMARY KEY (tenant_id, key)
);

CREATE TABLE app_user (
    id          serial PRIMARY KEY,
    tenant_id   int NOT NULL REFERENCES tenant,
    email       text NOT NULL UNIQUE,
    full_name   text NOT NULL,
    role        user_role NOT NULL DEFAULT 'seller',
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- What is sold

CREATE TABLE category (
    id          serial PRIMARY KEY,
    tenant_id   int NOT NULL REFERENCES tenant,
    name        text NOT NULL,
    UNIQUE (tenant_id, name)
);

CREATE TABLE supplier (
    id          serial PRIMARY KEY,
    tenant_id   int NOT NULL REFERENCES tenant,
    name        text NOT NULL,
    email       text
);

CREATE TABLE product (
    id          serial PRIMARY KEY,
    tenant_id   int NOT NULL REFERENCES tenant,
    category_id int NOT NULL REFERENCES category,
    supplier_id int NOT NULL REFERENCES supplier,
    sku         text NOT NULL,
    name        text NOT NULL,
    price       numeric(12,2) NOT NULL CHECK (price >= 0),
    active      boolean NOT NULL DEFAULT true,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, sku)
);

CREATE TABLE product_price (
    id          bigserial PRIMARY KEY,
    product_id  int NOT NULL REFERENCES product,
    price       numeric(12,2) NOT NULL,
    valid_from  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE product_stock (
    product_id  int PRIMARY KEY REFERENCES product,
    tenant_id   int NOT NULL REFERENCES tenant,
    initial     int NOT NULL DEFAULT 0,
    quantity    int NOT NULL DEFAULT 0,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT stock_is_never_negative CHECK (quantity >= 0)
);

-- Buying and selling

CREATE TABLE customer (
    id          serial PRIMARY KEY,
    tenant_id   int NOT NULL REFERENCES tenant,
    name        text NOT NULL,
    email       text,
    phone       text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE purchase (
    id          bigserial PRIMARY KEY,
    tenant_id   int NOT NULL REFERENCES tenant,
    supplier_id int NOT NULL REFERENCES supplier,
    datetime    timestamptz NOT NULL DEFAULT now(),
    total       numeric(12,2) NOT NULL DEFAULT 0
);

CREATE TABLE purchase_line (
    id          bigserial PRIMARY KEY,
    tenant_id   int NOT NULL REFERENCES tenant,
    purchase_id bigint NOT NULL REFERENCES purchase,
    product_id  int NOT NULL REFERENCES product,
    quantity    int NOT NULL CHECK (quantity > 0),
    unit_cost   numeric(12,2) NOT NULL CHECK (unit_cost >= 0),
    subtotal    numeric(12,2) NOT NULL GENERATED ALWAYS AS (quantity * unit_cost) STORED
);

CREATE TABLE sale (
    id          bigserial PRIMARY KEY,
    tenant_id   int NOT NULL REFERENCES tenant,
    customer_id int REFERENCES customer,
    datetime    timestamptz NOT NULL DEFAULT now(),
    status      sale_status NOT NULL DEFAULT 'draft',
    total       numeric(12,2) NOT NULL DEFAULT 0,
    updated_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE sale_line (
    id          bigserial PRIMARY KEY,
    tenant_id   int NOT NULL REFERENCES tenant,
    sale_id     bigint NOT NULL REFERENCES sale,
    product_id  int NOT NULL REFERENCES product,
    quantity    int NOT NULL CHECK (quantity > 0),
    unit_price  numeric(12,2) NOT NULL CHECK (unit_price >= 0),
    subtotal    numeric(12,2) NOT NULL GENERATED ALWAYS AS (quantity * unit_price) STORED
);

CREATE TABLE sale_payment (
    id          bigserial PRIMARY KEY,
    tenant_id   int NOT NULL REFERENCES tenant,
    sale_id     bigint NOT NULL REFERENCES sale,
    method      payment_method NOT NULL,
    amount      numeric(12,2) NOT NULL CHECK (amount > 0),
    paid_at     timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE stock_move (
    id               bigserial PRIMARY KEY,
    tenant_id        int NOT NULL REFERENCES tenant,
    product_id       int NOT NULL REFERENCES product,
    kind             move_kind NOT NULL,
    quantity         int NOT NULL CHECK (quantity <> 0),
    sale_line_id     bigint REFERENCES sale_line,
    purchase_line_id bigint REFERENCES purchase_line,
    moved_at         timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE finance_ledger (
    id          bigserial PRIMARY KEY,
    tenant_id   int NOT NULL REFERENCES tenant,
    kind        ledger_kind NOT NULL,
    amount      numeric(12,2) NOT NULL CHECK (amount > 0),
    payment_id  bigint UNIQUE REFERENCES sale_payment,
    purchase_id bigint UNIQUE REFERENCES purchase,
    concept     text NOT NULL,
    datetime    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE receipt_mail (
    id          bigserial PRIMARY KEY,
    tenant_id   int NOT NULL REFERENCES tenant,
    sale_id     bigint NOT NULL REFERENCES sale,
    recipient   text NOT NULL,
    sent_at     timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX sale_by_time ON sale (datetime DESC);
CREATE INDEX sale_by_tenant_and_time ON sale (tenant_id, datetime DESC);
CREATE INDEX sale_line_by_sale ON sale_line (sale_id);
CREATE INDEX sale_payment_by_sale ON sale_payment (sale_id);
CREATE INDEX stock_move_by_product ON stock_move (product_id);
CREATE INDEX stock_move_by_sale_line ON stock_move (sale_line_id);
CREATE INDEX purchase_line_by_purchase ON purchase_line (purchase_id);

-- Triggers: times, totals, stock and the ledger follow from what is written

CREATE FUNCTION touch_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END $$;

CREATE TRIGGER touch BEFORE UPDATE ON tenant FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
CREATE TRIGGER touch BEFORE UPDATE ON product FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
CREATE TRIGGER touch BEFORE UPDATE ON product_stock FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
CREATE TRIGGER touch BEFORE UPDATE ON customer FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
CREATE TRIGGER touch BEFORE UPDATE ON sale FOR EACH ROW EXECUTE FUNCTION touch_updated_at();

CREATE FUNCTION remember_price() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO product_price (product_id, price) VALUES (NEW.id, NEW.price);
    RETURN NULL;
END $$;

CREATE TRIGGER remember_first_price AFTER INSERT ON product
    FOR EACH ROW EXECUTE FUNCTION remember_price();
CREATE TRIGGER remember_price AFTER UPDATE OF price ON product
    FOR EACH ROW WHEN (OLD.price <> NEW.price) EXECUTE FUNCTION remember_price();

CREATE FUNCTION move_stock() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE product_stock SET quantity = quantity + NEW.quantity WHERE product_id = NEW.product_id;
    IF NOT FOUND THEN
        INSERT INTO product_stock (product_id, tenant_id, quantity)
        VALUES (NEW.product_id, NEW.tenant_id, NEW.quantity);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER move_stock AFTER INSERT ON stock_move FOR EACH ROW EXECUTE FUNCTION move_stock();

CREATE FUNCTION sell_line() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO stock_move (tenant_id, product_id, kind, quantity, sale_line_id)
    VALUES (NEW.tenant_id, NEW.product_id, 'sale', -NEW.quantity, NEW.id);
    UPDATE sale SET total = total + NEW.subtotal WHERE id = NEW.sale_id;
    RETURN NULL;
END $$;

CREATE TRIGGER sell_line AFTER INSERT ON sale_line FOR EACH ROW EXECUTE FUNCTION sell_line();

CREATE FUNCTION buy_line() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO stock_move (tenant_id, product_id, kind, quantity, purchase_line_id)
    VALUES (NEW.tenant_id, NEW.product_id, 'purchase', NEW.quantity, NEW.id);
    UPDATE purchase SET total = total + NEW.subtotal WHERE id = NEW.purchase_id;
    RETURN NULL;
END $$;

CREATE TRIGGER buy_line AFTER INSERT ON purchase_line FOR EACH ROW EXECUTE FUNCTION buy_line();

CREATE FUNCTION return_stock() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO stock_move (tenant_id, product_id, kind, quantity, sale_line_id)
    SELECT tenant_id, product_id, 'return', quantity, id FROM sale_line WHERE sale_id = NEW.id;
    RETURN NULL;
END $$;

CREATE TRIGGER return_stock AFTER UPDATE OF status ON sale
    FOR EACH ROW WHEN (NEW.status = 'cancelled' AND OLD.status <> 'cancelled')
    EXECUTE FUNCTION return_stock();

CREATE FUNCTION book_payment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO finance_ledger (tenant_id, kind, amount, payment_id, concept, datetime)
    VALUES (NEW.tenant_id, 'income', NEW.amount, NEW.id, 'Sale ' || NEW.sale_id, NEW.paid_at);
    RETURN NULL;
END $$;

CREATE TRIGGER book_payment AFTER INSERT ON sale_payment
    FOR EACH ROW EXECUTE FUNCTION book_payment();

INSERT INTO schema_version VALUES ('2025-11-03-shop', '2025-11-03'), ('2026-01-12-receipts', '2026-01-12');

COMMIT;
