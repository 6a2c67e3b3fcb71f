-- Winning bid of each auction.
SELECT id, "itemName", description, "initialBid", reserve, "dateTime", expires, seller, category, extra,
  auction, bidder, price, "bid_dateTime", bid_extra
FROM (
  SELECT a.id, a."itemName", a.description, a."initialBid", a.reserve, a."dateTime", a.expires, a.seller,
    a.category, a.extra, b.auction, b.bidder, b.price, b."dateTime" AS "bid_dateTime", b.extra AS bid_extra,
    row_number() OVER (PARTITION BY a.id ORDER BY b.price DESC, b."dateTime" ASC) AS place
  FROM auction AS a
  JOIN bid AS b ON b.auction = a.id AND b."dateTime" BETWEEN a."dateTime" AND a.expires
) AS ranked
WHERE place <= 1
