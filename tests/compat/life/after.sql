INSERT INTO sales VALUES (2, 9, 100, '2024-02-01'), (4, 1, 5, '2024-02-02');
DELETE FROM sales WHERE item = 3;
INSERT INTO items VALUES (4, 'table', 99.99, '2024-03-01', 20, NULL, 'null', true) ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name, price = EXCLUDED.price, added = EXCLUDED.added, weight = EXCLUDED.weight, tags = EXCLUDED.tags, facts = EXCLUDED.facts, sold = EXCLUDED.sold;
INSERT INTO visits VALUES (1, '2024-01-01 00:00:16', 'd'), (2, '2024-01-01 00:00:31', 'e');
CREATE MATERIALIZED VIEW late AS SELECT buyer, count(*) AS n FROM sales GROUP BY buyer;
DROP MATERIALIZED VIEW running;
