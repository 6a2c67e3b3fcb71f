-- Highest bid of each 10 s window. As the benchmark has it, both ends of the window count.
SELECT b.auction, b.price, b.bidder, b."dateTime", b.extra
FROM bid AS b
JOIN (
  SELECT window_end AS endtime, max(price) AS maxprice
  FROM TUMBLE(bid, "dateTime", INTERVAL '10' SECOND)
  GROUP BY window_start, window_end
) AS w ON b.price = w.maxprice
WHERE b."dateTime" BETWEEN w.endtime - INTERVAL '10' SECOND AND w.endtime
