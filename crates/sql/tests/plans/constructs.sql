SELECT k, count(*) FROM s GROUP BY k HAVING count(*) > 2
SELECT count(*), sum(v), avg(v), min(k), stddev(d), bool_or(v > 1) FROM t
SELECT DISTINCT k FROM s
SELECT DISTINCT ON (k) k, v, ts FROM t ORDER BY k, ts DESC
SELECT k, v FROM t ORDER BY v DESC LIMIT 3 OFFSET 1
SELECT k FROM t ORDER BY v
SELECT k, array_agg(v ORDER BY ts) FROM t GROUP BY k
SELECT k, string_agg(k, ',') FILTER (WHERE v > 1), median(v) FROM t GROUP BY k
SELECT t.k, s.v FROM t LEFT JOIN s ON t.k = s.k AND s.v > t.v
SELECT t.k, s.v FROM t FULL JOIN s ON t.k = s.k
SELECT t.k FROM t WHERE EXISTS (SELECT 1 FROM s WHERE s.k = t.k)
SELECT t.k FROM t WHERE k IN (SELECT k FROM s) OR v = 1
SELECT t.k FROM t WHERE k NOT IN (SELECT k FROM s)
SELECT t.k FROM t WHERE NOT EXISTS (SELECT 1 FROM s WHERE s.k = t.k)
SELECT t.k, s.k AS k2 FROM t, s WHERE t.v < s.v
SELECT k FROM t UNION ALL SELECT k FROM s
SELECT k, v FROM t UNION SELECT k, v FROM s
SELECT k FROM t INTERSECT SELECT k FROM s
SELECT k FROM t EXCEPT SELECT k FROM s
SELECT k, v, (SELECT max(v) FROM s) FROM t
SELECT k, v, (SELECT max(v) FROM s WHERE s.k = t.k) FROM t
SELECT k, rank() OVER (PARTITION BY k ORDER BY v) FROM t
SELECT k, sum(v) OVER (PARTITION BY k ORDER BY ts ROWS 2 PRECEDING) FROM t
SELECT * FROM (SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY v DESC) AS n FROM t) q WHERE n <= 3
SELECT k, v FROM (SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY v DESC) AS n FROM t) q WHERE n = 1
SELECT k, v FROM (SELECT k, v, row_number() OVER (ORDER BY v DESC) AS n FROM t) q WHERE n BETWEEN 2 AND 3
SELECT k, row_number() OVER (PARTITION BY k ORDER BY v) FROM t
SELECT 1 AS one, 'x' AS x
VALUES (1, 'a'), (2, 'b')
SELECT k, unnest(tags) FROM t
WITH RECURSIVE n AS (SELECT v FROM t UNION ALL SELECT v + 1 FROM n WHERE v < 10) SELECT * FROM n
WITH RECURSIVE n AS (SELECT k, v FROM t UNION SELECT t.k, n.v FROM n JOIN t ON t.v = n.v AND t.k <> n.k) SELECT k, count(*) FROM n GROUP BY k
WITH RECURSIVE n AS (SELECT v FROM t UNION ALL SELECT max(v) + 1 FROM n HAVING max(v) < 3) SELECT v FROM n
SELECT k, v FROM (SELECT k, v, rank() OVER (PARTITION BY k ORDER BY v DESC) AS r FROM t) WHERE r <= 3
SELECT k, v, GROUPING(k) FROM t GROUP BY ROLLUP (k, v)
SELECT window_start, count(*) FROM TUMBLE(s, ts, INTERVAL '1 minute') GROUP BY window_start EMIT ON WINDOW CLOSE
SELECT k, count(*) FROM TABLE(HOP(TABLE s, DESCRIPTOR(ts), INTERVAL '10' SECOND, INTERVAL '1' MINUTE)) GROUP BY k, window_start, window_end EMIT ON WINDOW CLOSE
SELECT k, window_end, count(*), max(v) FROM SESSION(s, ts, INTERVAL '10 seconds', PARTITION BY k) GROUP BY k, window_start, window_end EMIT ON WINDOW CLOSE
SELECT * FROM SESSION(s, k, ts, INTERVAL '10 seconds')
SELECT * FROM TUMBLE((SELECT * FROM s WHERE v > 1), ts, INTERVAL '1 minute') AS w WHERE w.window_end > TIMESTAMP '2026-01-01'
SELECT date_trunc('minute', ts) AS m, sum(v) FROM s GROUP BY 1 EMIT ON WINDOW CLOSE
SELECT date_bin(INTERVAL '15 minutes', ts) AS m, sum(v) FROM s GROUP BY 1
SELECT s.k, s.ts, r.w FROM s JOIN r ON s.k = r.k AND r.ts BETWEEN s.ts AND s.ts + INTERVAL '1 minute' EMIT ON WINDOW CLOSE
SELECT s.k, s.ts, r.w FROM s LEFT JOIN r ON s.k = r.k AND r.ts BETWEEN s.ts AND s.ts + INTERVAL '1 minute'
SELECT s.k, s.ts, r.w FROM s JOIN r ON s.k = r.k AND s.ts = r.ts
SELECT k, ts FROM s EMIT ON WINDOW CLOSE
SELECT k, v FROM s EMIT ON WINDOW CLOSE
SELECT k, count(*) FROM t GROUP BY k EMIT ON WINDOW CLOSE
SELECT now(), k FROM s
SELECT k FROM s WHERE ts > now() - INTERVAL '1 hour'
SELECT k FROM s WHERE v > random()
SELECT k, k FROM s
SELECT nope FROM s
SELECT k FROM nope
SELECT k, v FROM s GROUP BY k
SELECT k FROM s FOR SYSTEM_TIME AS OF ts
SELECT sum(k) FROM s
SELECT frob(k) FROM s
SELECT count(*) FROM TUMBLE(s, k, INTERVAL '1 minute') GROUP BY window_start
SELECT count(*) FROM TUMBLE(s, ts, INTERVAL '1 month') GROUP BY window_start
SELECT s.k, count(*) FROM s JOIN (SELECT k, count(*) AS c FROM t GROUP BY k) q ON s.k = q.k GROUP BY s.k
SELECT t.id, t.k, count(*) FROM t JOIN s ON s.k = t.k GROUP BY t.id
SELECT s.k, s.v FROM t JOIN s ON t.id = s.v WHERE t.d > 1
SELECT count(DISTINCT k), count(DISTINCT v) FROM t
SELECT CASE WHEN v > 0 THEN 10 / v END AS q, CAST(k AS BIGINT) AS n FROM t
SELECT k, u FROM (SELECT k, upper(k) AS u, row_number() OVER (PARTITION BY k ORDER BY v) AS n FROM t) q WHERE n <= 3 AND u <> 'X'
SELECT t.k FROM t WHERE id NOT IN (SELECT id FROM t AS o WHERE v > 3)
SELECT s.k FROM s JOIN t ON lower(s.k) = upper(t.k) AND s.v > t.v + 1
SELECT window_end, k, max(n) AS n FROM (SELECT k, window_start, window_end, count(*) AS n FROM HOP(s, ts, INTERVAL '1' MINUTE, INTERVAL '5' MINUTE) GROUP BY k, window_start, window_end) c GROUP BY k, window_end
SELECT window_start, k, v FROM (SELECT *, row_number() OVER (PARTITION BY window_start ORDER BY v DESC) AS n FROM TUMBLE(s, ts, INTERVAL '1 minute')) q WHERE n <= 2 EMIT ON WINDOW CLOSE
SELECT k, window_start, sum(v) FROM SESSION(s, ts, INTERVAL '10 seconds') GROUP BY k, window_start, window_end
SELECT window_start, window_end, sum(v) FROM CUMULATE(s, ts, INTERVAL '1 hour', INTERVAL '1 day') GROUP BY 1, 2 EMIT ON WINDOW CLOSE
SELECT * FROM CUMULATE(s, ts, INTERVAL '7 hours', INTERVAL '1 day')
SELECT k, sum(v) OVER (PARTITION BY k) AS total FROM s WHERE v IN (1, 2) AND k LIKE 'a%'
SELECT a.k FROM s AS a JOIN s AS b USING (k) WHERE a.ts < b.ts
SELECT k, v FROM s WHERE (k, v) IN (SELECT k, w FROM r)
SELECT s.k, l.w FROM s, LATERAL (SELECT max(w) AS w FROM r WHERE r.k = s.k) AS l
SELECT s.k, max(v) FILTER (WHERE v > 3) AS m FROM s GROUP BY k ORDER BY m DESC LIMIT 5
SELECT v FROM s LIMIT 2
SELECT k, avg(v) OVER (PARTITION BY k ORDER BY ts RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW) FROM s
SELECT k, row_number() OVER (PARTITION BY k ORDER BY v), lag(v, 2, 0) OVER (PARTITION BY k ORDER BY v), sum(v) OVER (PARTITION BY d ORDER BY ts), max(v) OVER () FROM t
SELECT window_start, k, count(*) OVER (PARTITION BY window_start, k) AS n FROM TUMBLE(s, ts, INTERVAL '1 minute')
SELECT k, ts, lag(v) OVER (PARTITION BY k ORDER BY ts) AS before FROM s EMIT ON WINDOW CLOSE
SELECT k, ts, lead(v) OVER (PARTITION BY k ORDER BY ts) AS after FROM s EMIT ON WINDOW CLOSE
SELECT k, last_value(v) IGNORE NULLS OVER (PARTITION BY k ORDER BY ts) FROM t
SELECT s.k, s.v, r.w FROM s ASOF JOIN r MATCH_CONDITION (s.ts >= r.ts) ON s.k = r.k
SELECT s.ts, s.v, r.w FROM s ASOF LEFT JOIN r MATCH_CONDITION (s.ts >= r.ts) ON s.k = r.k EMIT ON WINDOW CLOSE
SELECT t.id, r.w FROM t ASOF LEFT JOIN r MATCH_CONDITION (t.ts < r.ts)
SELECT s.v, l.w FROM s JOIN r FOR SYSTEM_TIME AS OF s.ts AS l ON s.k = l.k
SELECT s.v, t.v FROM s JOIN t FOR SYSTEM_TIME AS OF s.ts ON s.k = t.k
SELECT s.k FROM s ASOF JOIN r MATCH_CONDITION (s.ts >= r.ts) ON s.k = r.k OR s.v = 1
SELECT s.k FROM s ASOF JOIN r MATCH_CONDITION (s.ts >= r.ts) USING (k)
SELECT t.id, u FROM t, unnest(t.tags) AS u
SELECT s.k, l.w FROM s, LATERAL (SELECT w FROM r WHERE r.k = s.k ORDER BY w DESC LIMIT 2) AS l
SELECT id, EXISTS (SELECT 1 FROM s WHERE s.k = t.k) AS e FROM t
SELECT k, v, sum(d) AS d, grouping(k) AS g FROM t GROUP BY CUBE (k, v)
SELECT k, v FROM t ORDER BY v FETCH FIRST 2 ROWS WITH TIES
SELECT v * 0.908 AS p, v / 2 AS h, d / 2 AS q, avg(v) OVER (PARTITION BY k) AS a FROM t
SELECT k, jsonb_agg(v) AS j FROM t GROUP BY k
