-- The book of record. Columns named in the contract keep their names and meaning.

CREATE TABLE campaigns (
    id          text PRIMARY KEY,
    revision    bigint NOT NULL,
    status      text NOT NULL,
    document    jsonb NOT NULL,
    changed_at  timestamptz NOT NULL
);

-- Every revision that ever was, so that a reservation can be judged by the rules of its time.
CREATE TABLE campaign_revisions (
    campaign    text NOT NULL,
    revision    bigint NOT NULL,
    status      text NOT NULL,
    document    jsonb NOT NULL,
    changed_at  timestamptz NOT NULL,
    PRIMARY KEY (campaign, revision)
);

-- One row for each reservation that was ever acknowledged, in its latest known version.
CREATE TABLE orders (
    reservation_id  text PRIMARY KEY,
    campaign        text NOT NULL,
    kind            text NOT NULL,
    sku             text NOT NULL,
    user_id         text NOT NULL,
    quantity        bigint NOT NULL,
    state           text NOT NULL,
    version         bigint NOT NULL,
    currency        text NOT NULL,
    total           bigint NOT NULL,
    paid            bigint NOT NULL,          -- received, in minor units
    refunded        bigint NOT NULL,          -- of it, given back or being given back
    main_order_id   text,
    tier            text,
    lines           jsonb,                    -- what fulfilment ships: [{sku, title, quantity}]
    price           jsonb NOT NULL,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    settled_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX orders_by_campaign ON orders (campaign, created_at);
CREATE INDEX orders_by_user ON orders (user_id, created_at DESC);

CREATE TABLE order_events (
    reservation_id  text NOT NULL,
    version         bigint NOT NULL,
    type            text NOT NULL,
    data            jsonb NOT NULL,
    at              timestamptz NOT NULL,
    PRIMARY KEY (reservation_id, version)
);

CREATE TABLE payments (
    payment_id      text PRIMARY KEY,
    reservation_id  text NOT NULL,
    stage           text NOT NULL,
    amount          bigint NOT NULL,
    currency        text NOT NULL,
    status          text NOT NULL,
    provider_ref    text,
    at              timestamptz NOT NULL,
    version         bigint NOT NULL           -- of the reservation that this row was taken from
);
CREATE INDEX payments_by_reservation ON payments (reservation_id);

CREATE TABLE refunds (
    refund_id       text PRIMARY KEY,
    payment_id      text NOT NULL,
    reservation_id  text NOT NULL,
    amount          bigint NOT NULL,
    currency        text NOT NULL,
    status          text NOT NULL,
    reason          text NOT NULL,
    at              timestamptz NOT NULL,
    version         bigint NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX refunds_by_reservation ON refunds (reservation_id);
CREATE INDEX refunds_to_ask_for ON refunds (next_attempt_at) WHERE status = 'pending';
