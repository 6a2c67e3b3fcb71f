-- Departures from New York's three airports, kept current while they happen.
--
-- An event arrives when an aircraft really leaves (a cancelled flight: at its scheduled time) and is
-- stamped with the time at which it should have left. So events come out of order exactly as much as
-- the flights were delayed.

-- What is known beforehand.
CREATE TABLE airlines (
    carrier text PRIMARY KEY,
    name text NOT NULL
);

CREATE TABLE airports (
    airport text PRIMARY KEY,
    name text NOT NULL,
    latitude double precision,
    longitude double precision,
    altitude integer,
    time_zone text
);

CREATE TABLE planes (
    tailnum text PRIMARY KEY,
    built integer,
    type text,
    manufacturer text,
    model text,
    engines integer,
    seats integer,
    engine text
);

-- Hourly observations; they arrive on the hour.
CREATE TABLE weather (
    origin text,
    observed timestamp,
    temperature double precision,
    humidity double precision,
    wind_direction integer,
    wind_speed double precision,
    wind_gust double precision,
    precipitation double precision,
    pressure double precision,
    visibility double precision,
    PRIMARY KEY (origin, observed)
);

-- The stream. Most flights leave within three hours of their time; those that do not are late and go
-- to `departures$late`.
CREATE TABLE departures (
    scheduled timestamp NOT NULL,
    departed timestamp,
    delay integer,
    carrier text NOT NULL,
    flight integer NOT NULL,
    tailnum text,
    origin text NOT NULL,
    dest text NOT NULL,
    distance integer,
    WATERMARK FOR scheduled AS scheduled - INTERVAL '3 hours'
);

-- Delays per airport and quarter of an hour.
CREATE MATERIALIZED VIEW delays_15min AS
SELECT window_start,
       window_end,
       origin,
       count(*) AS flights,
       count(departed) AS departed,
       avg(delay) AS average_delay,
       max(delay) AS longest_delay,
       count(*) FILTER (WHERE delay >= 15) AS delayed
FROM TUMBLE(departures, scheduled, INTERVAL '15 minutes')
GROUP BY window_start, window_end, origin;

-- Delays per airport over an hour, every quarter of an hour.
CREATE MATERIALIZED VIEW delays_hourly AS
SELECT window_start,
       window_end,
       origin,
       count(*) AS flights,
       avg(delay) AS average_delay,
       max(delay) AS longest_delay
FROM HOP(departures, scheduled, INTERVAL '15 minutes', INTERVAL '1 hour')
GROUP BY window_start, window_end, origin;

-- The same hours, each once, when nothing can change any more.
CREATE MATERIALIZED VIEW delays_final AS
SELECT window_start,
       window_end,
       origin,
       count(*) AS flights,
       count(departed) AS departed,
       sum(delay) AS total_delay
FROM TUMBLE(departures, scheduled, INTERVAL '1 hour')
GROUP BY window_start, window_end, origin
EMIT ON WINDOW CLOSE;

-- Each departure with its airline, its aircraft and the weather of its hour.
CREATE MATERIALIZED VIEW departures_full AS
SELECT d.scheduled,
       d.departed,
       d.delay,
       d.carrier || ' ' || d.flight AS flight,
       l.name AS airline,
       d.origin,
       d.dest,
       a.name AS destination,
       p.manufacturer,
       p.model,
       p.seats,
       w.temperature,
       w.wind_speed,
       w.precipitation,
       w.visibility
FROM departures d
JOIN airlines l ON l.carrier = d.carrier
LEFT JOIN airports a ON a.airport = d.dest
LEFT JOIN planes p ON p.tailnum = d.tailnum
LEFT JOIN weather w ON w.origin = d.origin AND w.observed = date_trunc('hour', d.scheduled);

-- How airlines do per day.
CREATE MATERIALIZED VIEW carriers_daily AS
SELECT window_start AS day,
       l.name AS airline,
       count(*) AS flights,
       count(*) FILTER (WHERE d.delay >= 15) AS delayed,
       count(*) FILTER (WHERE d.departed IS NULL) AS cancelled,
       avg(d.delay) AS average_delay
FROM TUMBLE(departures, scheduled, INTERVAL '1 day') d
JOIN airlines l ON l.carrier = d.carrier
GROUP BY window_start, l.name;

-- The three worst of each day.
CREATE MATERIALIZED VIEW worst_carriers AS
SELECT day, place, airline, flights, average_delay
FROM (
    SELECT day, airline, flights, average_delay,
           row_number() OVER (PARTITION BY day ORDER BY average_delay DESC NULLS LAST, airline) AS place
    FROM carriers_daily
) ranked
WHERE place <= 3;

-- The worst now: today so far.
CREATE MATERIALIZED VIEW worst_carriers_now AS
SELECT day, airline, flights, delayed, cancelled, average_delay
FROM carriers_daily
ORDER BY day DESC, average_delay DESC NULLS LAST, airline
LIMIT 5;

-- Cancellations per airport and hour.
CREATE MATERIALIZED VIEW cancellations AS
SELECT window_start AS hour,
       origin,
       count(*) AS cancelled,
       count(DISTINCT carrier) AS airlines
FROM TUMBLE(departures, scheduled, INTERVAL '1 hour')
WHERE departed IS NULL
GROUP BY window_start, origin;

-- Delays by the weather of the hour.
CREATE MATERIALIZED VIEW delays_by_weather AS
SELECT CASE
           WHEN visibility IS NULL THEN 'unknown'
           WHEN precipitation > 0 THEN 'rain or snow'
           WHEN visibility < 5 THEN 'fog'
           WHEN wind_speed >= 20 THEN 'wind'
           ELSE 'fair'
       END AS weather,
       count(*) AS flights,
       count(*) FILTER (WHERE departed IS NULL) AS cancelled,
       avg(delay) AS average_delay
FROM departures_full
GROUP BY 1;

-- Alerts: who left two hours or more after time, late or not.
CREATE MATERIALIZED VIEW long_delays AS
SELECT scheduled, departed, delay, carrier, flight, origin, dest
FROM departures
WHERE delay >= 120
UNION ALL
SELECT scheduled, departed, delay, carrier, flight, origin, dest
FROM departures$late
WHERE delay >= 120;

-- What came too late for its windows.
CREATE MATERIALIZED VIEW late_departures AS
SELECT origin,
       count(*) AS flights,
       min(delay) AS least_delay,
       max(delay) AS greatest_delay
FROM departures$late
GROUP BY origin;
