-- Hot items: the auctions with most bids in each 10 s window, every 2 s.
WITH counts AS (
  SELECT auction, window_start AS starttime, window_end AS endtime, count(*) AS num
  FROM HOP(bid, "dateTime", INTERVAL '2' SECOND, INTERVAL '10' SECOND)
  GROUP BY auction, window_start, window_end
), most AS (
  SELECT starttime, endtime, max(num) AS maxn
  FROM counts
  GROUP BY starttime, endtime
)
SELECT c.auction, c.num
FROM counts AS c
JOIN most AS m ON c.starttime = m.starttime AND c.endtime = m.endtime AND c.num >= m.maxn
