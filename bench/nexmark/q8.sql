-- New users: people who opened an auction in the 10 s window they joined in.
WITH joined AS (
  SELECT id, name, window_start AS starttime, window_end AS endtime
  FROM TUMBLE(person, "dateTime", INTERVAL '10' SECOND)
  GROUP BY id, name, window_start, window_end
), sold AS (
  SELECT seller, window_start AS starttime, window_end AS endtime
  FROM TUMBLE(auction, "dateTime", INTERVAL '10' SECOND)
  GROUP BY seller, window_start, window_end
)
SELECT j.id, j.name, j.starttime
FROM joined AS j
JOIN sold AS s ON s.seller = j.id AND s.starttime = j.starttime AND s.endtime = j.endtime
