-- Calculation: filter, conversion, CASE and a count of one character.
SELECT auction, bidder, CAST(0.908 AS DECIMAL(4, 3)) * price AS price,
  CASE
    WHEN extract(hour FROM "dateTime") BETWEEN 8 AND 18 THEN 'dayTime'
    WHEN extract(hour FROM "dateTime") <= 6 OR extract(hour FROM "dateTime") >= 20 THEN 'nightTime'
    ELSE 'otherTime'
  END AS "bidTimeType",
  "dateTime", extra,
  length(extra) - length(replace(extra, 'c', '')) AS c_counts
FROM bid
WHERE CAST(0.908 AS DECIMAL(4, 3)) * price > 1000000 AND CAST(0.908 AS DECIMAL(4, 3)) * price < 50000000
