-- Join with a bounded side input of 10 000 keys. The benchmark looks keys up as the bids come by; this
-- is a join proper, which also answers bids that come before their key.
SELECT b.auction, b.bidder, b.price, b."dateTime", s.value
FROM bid AS b
JOIN side_input AS s ON mod(b.auction, 10000) = s.key
