-- What the merchant is told: one row for each event that calls for it, named after the event.

CREATE TABLE notifications (
    notification_id text PRIMARY KEY,         -- <reservation id>.<version>
    reservation_id  text NOT NULL,
    campaign        text NOT NULL,
    user_id         text NOT NULL,
    type            text NOT NULL,            -- the event's
    body            jsonb NOT NULL,           -- what is sent
    status          text NOT NULL DEFAULT 'pending',  -- then sent, or failed
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    sent_at         timestamptz,
    last_error      text
);
CREATE INDEX notifications_by_reservation ON notifications (reservation_id);
CREATE INDEX notifications_to_send ON notifications (next_attempt_at) WHERE status = 'pending';
