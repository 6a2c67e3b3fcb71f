-- Last bid of each bidder on each auction. Bids of one millisecond tie, so only some columns are fixed.
SELECT auction, bidder, price, channel, url, "dateTime", extra
FROM (
  SELECT auction, bidder, price, channel, url, "dateTime", extra,
    row_number() OVER (PARTITION BY bidder, auction ORDER BY "dateTime" DESC) AS place
  FROM bid
) AS ranked
WHERE place <= 1
