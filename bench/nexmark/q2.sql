-- Selection: the bids on one auction in 123.
SELECT auction, price
FROM bid
WHERE mod(auction, 123) = 0
