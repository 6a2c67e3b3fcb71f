-- Joins and groups whose state is 5 GiB and more; the answers are known.
CREATE SOURCE a (k bigint, v bigint)
WITH (connector = 'datagen', rows = 40000000, seed = 1, "fields.k.kind" = 'sequence', "fields.v.min" = 0, "fields.v.max" = 1000);
CREATE SOURCE b (k bigint, v bigint)
WITH (connector = 'datagen', rows = 40000000, seed = 2, "fields.k.kind" = 'sequence', "fields.v.min" = 0, "fields.v.max" = 1000);

-- Each row is kept until its partner may come again: for ever.
CREATE MATERIALIZED VIEW joined AS
SELECT count(*) AS pairs, min(a.k) AS first, max(b.k) AS last, count(*) FILTER (WHERE a.k <> b.k) AS wrong
FROM a JOIN b ON a.k = b.k;

-- Thirteen million groups, each of which is touched again when as many other rows have come.
CREATE MATERIALIZED VIEW grouped AS
SELECT count(*) AS groups, sum(n) AS rows, min(n) AS least, max(n) AS most
FROM (SELECT k % 13333334 AS g, count(*) AS n FROM a GROUP BY 1) AS x;

SELECT * FROM joined;
SELECT * FROM grouped;
