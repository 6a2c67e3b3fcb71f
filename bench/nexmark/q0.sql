-- Pass-through: what reading and decoding cost.
SELECT auction, bidder, price, "dateTime", extra
FROM bid
