-- Main orders as they were reported: what entitles to trade-ins.

CREATE TABLE main_orders (
    order_id    text PRIMARY KEY,
    user_id     text,                         -- NULL while only its cancellation is known
    state       text NOT NULL,
    lines       jsonb NOT NULL,               -- what is left of it: [{sku, category, amount}]
    paid_at     timestamptz,
    version     bigint NOT NULL,
    updated_at  timestamptz NOT NULL
);
CREATE INDEX orders_by_main_order ON orders (main_order_id) WHERE main_order_id IS NOT NULL;
COMMENT ON COLUMN orders.lines IS 'what fulfilment ships: [{sku, quantity, gift?, main_order_id?}]';
