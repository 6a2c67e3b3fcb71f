-- Currency conversion; an exact decimal with three places.
SELECT auction, bidder, 0.908 * price AS price, "dateTime", extra
FROM bid
