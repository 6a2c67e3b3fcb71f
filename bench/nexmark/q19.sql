-- Ten highest bids of each auction. Equal prices tie, so only some columns are fixed.
SELECT auction, bidder, price, channel, url, "dateTime", extra, rank_number
FROM (
  SELECT auction, bidder, price, channel, url, "dateTime", extra,
    row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS rank_number
  FROM bid
) AS ranked
WHERE rank_number <= 10
