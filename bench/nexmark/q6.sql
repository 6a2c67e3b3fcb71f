-- Average selling price of each seller's last ten sales and this one. The benchmark leaves ties open
-- (equal prices, sales of one millisecond); here the earlier bid and the lower id decide, so that the
-- answer is fixed. The average is a whole number, as elsewhere in the benchmark.
WITH winning AS (
  SELECT id, seller, price, "dateTime"
  FROM (
    SELECT a.id, a.seller, b.price, b."dateTime",
      row_number() OVER (PARTITION BY a.id, a.seller ORDER BY b.price DESC, b."dateTime") AS place
    FROM auction AS a
    JOIN bid AS b ON b.auction = a.id AND b."dateTime" BETWEEN a."dateTime" AND a.expires
  ) AS ranked
  WHERE place <= 1
)
SELECT seller, CAST(sum(price) OVER recent AS BIGINT) / count(*) OVER recent AS price
FROM winning
WINDOW recent AS (PARTITION BY seller ORDER BY "dateTime", id ROWS BETWEEN 10 PRECEDING AND CURRENT ROW)
