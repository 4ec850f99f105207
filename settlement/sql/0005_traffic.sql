-- Traffic: what never becomes an event. Copied from the store, and never lowered.

CREATE TABLE traffic (
    campaign    text NOT NULL,
    minute      timestamptz NOT NULL,         -- its beginning
    what        text NOT NULL,                -- visit, quoted, waitlisted; replayed; an outcome of reserving
    count       bigint NOT NULL,
    PRIMARY KEY (campaign, minute, what)
);

-- How many different people came. Who they were is nowhere.
CREATE TABLE traffic_people (
    campaign        text PRIMARY KEY,
    visitors        bigint NOT NULL,
    participants    bigint NOT NULL
);
