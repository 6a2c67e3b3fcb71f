-- Currency conversion; an exact decimal with three places.
SELECT auction, bidder, CAST(0.908 AS DECIMAL(4, 3)) * price AS price, "dateTime", extra
FROM bid
