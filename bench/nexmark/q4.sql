-- Average closing price of a category. The average is a whole number, as the benchmark has it.
WITH winning AS (
  SELECT a.id, a.category, max(b.price) AS final
  FROM auction AS a
  JOIN bid AS b ON b.auction = a.id AND b."dateTime" BETWEEN a."dateTime" AND a.expires
  GROUP BY a.id, a.category
)
SELECT category, CAST(sum(final) AS BIGINT) / count(*) AS final
FROM winning
GROUP BY category
