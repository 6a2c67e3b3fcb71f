-- Bids of each user in 10 s. The benchmark's windows are of processing time, so that its answer depends
-- on the run; these are of event time, which makes the answer fixed and the work the same.
SELECT bidder, count(*) AS bid_count, window_start AS starttime, window_end AS endtime
FROM TUMBLE(bid, "dateTime", INTERVAL '10' SECOND)
GROUP BY bidder, window_start, window_end
