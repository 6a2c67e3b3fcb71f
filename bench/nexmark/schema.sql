-- The Nexmark streams. `tidemill bench nexmark` puts the place of the events where ${SOURCE} and
-- ${SIDE} stand: files made by the generator (`part-*.json`, `side_input.csv`), or the built-in
-- generator that keeps the same events in memory.

-- One stream of all events: an object per line, of which event_type says which member is set.
CREATE SOURCE events (
  event_type INT,
  person STRUCT<id BIGINT, name VARCHAR, "emailAddress" VARCHAR, "creditCard" VARCHAR, city VARCHAR,
    state VARCHAR, "dateTime" TIMESTAMP(3), extra VARCHAR>,
  auction STRUCT<id BIGINT, "itemName" VARCHAR, description VARCHAR, "initialBid" BIGINT, reserve BIGINT,
    "dateTime" TIMESTAMP(3), expires TIMESTAMP(3), seller BIGINT, category BIGINT, extra VARCHAR>,
  bid STRUCT<auction BIGINT, bidder BIGINT, price BIGINT, channel VARCHAR, url VARCHAR,
    "dateTime" TIMESTAMP(3), extra VARCHAR>,
  "dateTime" TIMESTAMP(3) GENERATED ALWAYS AS (CASE event_type
    WHEN 0 THEN (person)."dateTime" WHEN 1 THEN (auction)."dateTime" ELSE (bid)."dateTime" END) STORED,
  WATERMARK FOR "dateTime" AS "dateTime" - INTERVAL '4' SECOND
) ${SOURCE};

-- The bounded side input of q13.
CREATE SOURCE side_input (
  key BIGINT,
  value VARCHAR
) ${SIDE};

CREATE VIEW person AS
SELECT (person).id AS id, (person).name AS name, (person)."emailAddress" AS "emailAddress", (person)."creditCard" AS "creditCard", (person).city AS city,
  (person).state AS state, "dateTime", (person).extra AS extra
FROM events
WHERE event_type = 0;

CREATE VIEW auction AS
SELECT (auction).id AS id, (auction)."itemName" AS "itemName", (auction).description AS description, (auction)."initialBid" AS "initialBid",
  (auction).reserve AS reserve, "dateTime", (auction).expires AS expires, (auction).seller AS seller, (auction).category AS category,
  (auction).extra AS extra
FROM events
WHERE event_type = 1;

CREATE VIEW bid AS
SELECT (bid).auction AS auction, (bid).bidder AS bidder, (bid).price AS price, (bid).channel AS channel, (bid).url AS url, "dateTime", (bid).extra AS extra
FROM events
WHERE event_type = 2;
