-- What always holds in the shop. Each query returns the rows that violate it: no rows, nothing wrong.
-- "-- name:" starts a query, a semicolon ends it.

-- name: a sale's total is the sum of its lines
SELECT s.id, s.tenant_id, s.total, coalesce(l.sum, 0) AS sum_of_lines
FROM sale s LEFT JOIN (SELECT sale_id, sum(subtotal) FROM sale_line GROUP BY sale_id) l ON l.sale_id = s.id
WHERE s.total <> coalesce(l.sum, 0);

-- name: every sale that is not a draft has lines
SELECT s.id, s.tenant_id FROM sale s
WHERE s.status <> 'draft' AND NOT EXISTS (SELECT FROM sale_line l WHERE l.sale_id = s.id);

-- name: a paid sale is paid in full
SELECT s.id, s.tenant_id, s.total, coalesce(p.sum, 0) AS paid
FROM sale s LEFT JOIN (SELECT sale_id, sum(amount) FROM sale_payment GROUP BY sale_id) p ON p.sale_id = s.id
WHERE s.status = 'paid' AND s.total <> coalesce(p.sum, 0);

-- name: the stock is the initial stock and all its moves
SELECT s.product_id, s.tenant_id, s.quantity, s.initial + coalesce(m.sum, 0) AS expected
FROM product_stock s LEFT JOIN (SELECT product_id, sum(quantity) FROM stock_move GROUP BY product_id) m USING (product_id)
WHERE s.quantity <> s.initial + coalesce(m.sum, 0);

-- name: a sold line moved its pieces out of stock, a cancelled one also back
SELECT l.id, l.tenant_id, l.quantity, coalesce(m.sum, 0) AS moved
FROM sale_line l JOIN sale s ON s.id = l.sale_id
LEFT JOIN (SELECT sale_line_id, sum(quantity) FROM stock_move GROUP BY sale_line_id) m ON m.sale_line_id = l.id
WHERE coalesce(m.sum, 0) <> CASE WHEN s.status = 'cancelled' THEN 0 ELSE -l.quantity END;

-- name: every payment is in the ledger with its amount
SELECT p.id, p.tenant_id, p.amount, f.amount AS booked
FROM sale_payment p LEFT JOIN finance_ledger f ON f.payment_id = p.id
WHERE f.amount IS DISTINCT FROM p.amount;

-- name: every purchase is in the ledger with its total
SELECT b.id, b.tenant_id, b.total, f.amount AS booked
FROM purchase b LEFT JOIN finance_ledger f ON f.purchase_id = b.id
WHERE f.amount IS DISTINCT FROM b.total;

-- name: nothing belongs to two tenants
SELECT 'sale_line' AS row_of, l.id FROM sale_line l JOIN sale s ON s.id = l.sale_id JOIN product p ON p.id = l.product_id
WHERE l.tenant_id <> s.tenant_id OR l.tenant_id <> p.tenant_id
UNION ALL
SELECT 'sale', s.id FROM sale s JOIN customer c ON c.id = s.customer_id WHERE c.tenant_id <> s.tenant_id
UNION ALL
SELECT 'sale_payment', p.id FROM sale_payment p JOIN sale s ON s.id = p.sale_id WHERE p.tenant_id <> s.tenant_id;

-- name: no row has lost the row it belongs to
SELECT 'sale_line' AS row_of, l.id FROM sale_line l LEFT JOIN sale s ON s.id = l.sale_id WHERE s.id IS NULL
UNION ALL
SELECT 'sale_payment', p.id FROM sale_payment p LEFT JOIN sale s ON s.id = p.sale_id WHERE s.id IS NULL
UNION ALL
SELECT 'sale', s.id FROM sale s LEFT JOIN tenant t ON t.id = s.tenant_id WHERE t.id IS NULL
UNION ALL
SELECT 'product_stock', s.product_id FROM product_stock s LEFT JOIN product p ON p.id = s.product_id WHERE p.id IS NULL;
