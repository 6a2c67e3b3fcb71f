//! What the clients of the tables work with: tables, views of every kind, and views that come and go.

/// The tables. In each of them `w` is the client whose row it is; no other touches it.
pub const TABLES: [&str; 9] = [
    "CREATE TABLE customers (w int, id int PRIMARY KEY, name text, region text)",
    "CREATE TABLE transfers (w int, id bigint PRIMARY KEY, source int NOT NULL, target int NOT NULL, amount bigint NOT NULL)",
    "CREATE TABLE audit (w int, op bigint, note text, amount bigint)",
    "CREATE TABLE orders (w int, id bigint PRIMARY KEY, customer int, item text, quantity int, price numeric(10, 2), divisor int)",
    "CREATE TABLE bag (w int, k int, v int)",
    "CREATE TABLE sales (w int, id bigint PRIMARY KEY, customer int, day date, total numeric(12, 2))",
    "CREATE TABLE lines (w int, id bigint PRIMARY KEY, sale bigint, quantity int, price numeric(12, 2), discount numeric(3, 2), shipped date)",
    "CREATE TABLE events (w int, n bigint, i int, ms bigint, at timestamp, kind text, value int,
        WATERMARK FOR at AS at - INTERVAL '2 seconds')",
    // Its late rows are let in now and then.
    "CREATE TABLE clicks (w int, n bigint, i int, ms bigint, at timestamp, kind text, value int,
        WATERMARK FOR at AS at - INTERVAL '1 second')",
];

/// What is compared of each table: name, and columns.
pub const COMPARED: [(&str, &str); 9] = [
    ("customers", "w, id, name, region"),
    ("transfers", "w, id, source, target, amount"),
    ("audit", "w, op, note, amount"),
    ("orders", "w, id, customer, item, quantity, price, divisor"),
    ("bag", "w, k, v"),
    ("sales", "w, id, customer, day, total"),
    ("lines", "w, id, sale, quantity, price, discount, shipped"),
    ("events", "w, n, i, ms, kind, value"),
    ("clicks", "w, n, i, ms, kind, value"),
];

/// The views: name and query.
pub const VIEWS: &[(&str, &str)] = &[
    ("credits", "SELECT target AS account, sum(amount) AS credit FROM transfers GROUP BY target"),
    ("debits", "SELECT source AS account, sum(amount) AS debit FROM transfers GROUP BY source"),
    (
        "balances",
        "SELECT coalesce(c.account, d.account) AS account, coalesce(credit, 0) - coalesce(debit, 0) AS balance
         FROM credits c FULL JOIN debits d ON c.account = d.account",
    ),
    ("total", "SELECT coalesce(sum(balance), 0) AS total FROM balances"),
    (
        "per_customer",
        "SELECT customer, count(*) AS n, sum(quantity) AS pieces, avg(quantity) AS average, min(price) AS least,
                max(price) AS most, count(DISTINCT item) AS items, variance(quantity) AS spread,
                count(*) FILTER (WHERE quantity > 5) AS large, median(quantity) AS middle
         FROM orders GROUP BY customer",
    ),
    (
        "lists",
        "SELECT k, array_agg(v ORDER BY v) AS list, string_agg(CAST(v AS text), ',' ORDER BY v) AS text
         FROM bag GROUP BY k",
    ),
    // TPC-H's queries 3 and 18, over sales that come and go as its refresh functions have it.
    (
        "shipping",
        "SELECT l.sale, sum(l.price * (1 - l.discount)) AS revenue, s.day
         FROM customers c, sales s, lines l
         WHERE c.region = 'r1' AND c.id = s.customer AND l.sale = s.id AND s.day < DATE '1995-03-15' AND l.shipped > DATE '1995-03-15'
         GROUP BY l.sale, s.day ORDER BY revenue DESC, s.day, l.sale LIMIT 10",
    ),
    (
        "large_sales",
        "SELECT c.name, c.id AS customer, s.id, s.day, s.total, sum(l.quantity) AS quantity
         FROM customers c, sales s, lines l
         WHERE s.id IN (SELECT sale FROM lines GROUP BY sale HAVING sum(quantity) > 150) AND c.id = s.customer AND s.id = l.sale
         GROUP BY c.name, c.id, s.id, s.day, s.total ORDER BY s.total DESC, s.day, s.id LIMIT 30",
    ),
    ("rollup", "SELECT region, name, count(*) AS n FROM customers GROUP BY ROLLUP (region, name)"),
    (
        "joined",
        "SELECT o.id, o.item, o.quantity * o.price AS amount, c.name, c.region
         FROM orders o JOIN customers c ON c.id = o.customer",
    ),
    (
        "left_joined",
        "SELECT c.id, c.region, o.id AS big FROM customers c LEFT JOIN orders o ON o.customer = c.id AND o.quantity > 8",
    ),
    (
        "full_joined",
        "SELECT b.k, b.v, p.customer, p.n FROM bag b FULL JOIN per_customer p ON b.k = p.customer",
    ),
    (
        "with_orders",
        "SELECT id, name FROM customers c WHERE EXISTS (SELECT 1 FROM orders o WHERE o.customer = c.id AND o.quantity > 7)",
    ),
    (
        "without_orders",
        "SELECT id, name FROM customers c WHERE NOT EXISTS (SELECT 1 FROM bag b WHERE b.k = c.id)",
    ),
    (
        "of_views",
        "SELECT p.customer, p.pieces, s.amount FROM per_customer p
         JOIN (SELECT region, sum(amount) AS amount, min(id) AS id FROM joined GROUP BY region) s ON p.customer = s.id % 12",
    ),
    (
        "best",
        "SELECT customer, id, price FROM (
            SELECT customer, id, price, row_number() OVER (PARTITION BY customer ORDER BY price DESC, id) AS place
            FROM orders) AS ranked WHERE place <= 3",
    ),
    ("largest", "SELECT w, id, amount FROM transfers ORDER BY amount DESC, id LIMIT 10"),
    ("latest", "SELECT DISTINCT ON (customer) customer, id, item FROM orders ORDER BY customer, id DESC"),
    (
        "running",
        "SELECT source, id, amount, lag(amount) OVER (PARTITION BY source ORDER BY id) AS before,
                sum(amount) OVER (PARTITION BY source ORDER BY id) AS so_far FROM transfers",
    ),
    ("ranks", "SELECT k, v, rank() OVER (PARTITION BY k ORDER BY v) AS place FROM bag"),
    (
        "asof",
        "SELECT b.k, b.v, o.quantity FROM bag b ASOF LEFT JOIN orders o MATCH_CONDITION (b.v >= o.quantity) ON b.k = o.customer",
    ),
    ("unnested", "SELECT id, unnest(ARRAY[quantity, divisor]) AS x FROM orders"),
    (
        "tumbled",
        "SELECT window_start, kind, count(*) AS n, sum(value) AS s FROM TUMBLE(events, at, INTERVAL '1 second')
         GROUP BY window_start, kind",
    ),
    (
        "hopped",
        "SELECT window_start, window_end, max(value) AS most, count(DISTINCT kind) AS kinds
         FROM HOP(events, at, INTERVAL '1 second', INTERVAL '3 seconds') GROUP BY window_start, window_end",
    ),
    (
        "sessions",
        "SELECT kind, window_start, window_end, count(*) AS n
         FROM SESSION(events, at, INTERVAL '300 milliseconds', PARTITION BY kind) GROUP BY kind, window_start, window_end",
    ),
    (
        "near",
        "SELECT a.n, a.i, b.n AS other, b.i AS other_i FROM events a
         JOIN events b ON a.kind = b.kind AND a.value = b.value AND b.at BETWEEN a.at AND a.at + INTERVAL '500 milliseconds'",
    ),
    (
        "clicked",
        "SELECT window_start, kind, count(*) AS n, max(value) AS most FROM TUMBLE(clicks, at, INTERVAL '1 second')
         GROUP BY window_start, kind",
    ),
    ("clicked_most", "SELECT kind, max(n) AS n, sum(most) AS most FROM clicked GROUP BY kind"),
    (
        "visits",
        "SELECT w, window_start, window_end, count(*) AS n
         FROM SESSION(clicks, at, INTERVAL '200 milliseconds', PARTITION BY w) GROUP BY w, window_start, window_end",
    ),
    ("late_ones", "SELECT w, count(*) AS n, max(value) AS most FROM events$late GROUP BY w"),
    ("unioned", "SELECT w, k AS x FROM bag UNION ALL SELECT w, customer AS x FROM orders"),
    ("united", "SELECT k AS x FROM bag UNION SELECT customer AS x FROM orders"),
    ("excepted", "SELECT id FROM customers EXCEPT SELECT k FROM bag"),
    ("met_all", "SELECT k FROM bag INTERSECT ALL SELECT customer FROM orders"),
    ("shares", "SELECT id, quantity / divisor AS share FROM orders"),
    ("faulty", "SELECT count(*) AS n FROM shares$errors"),
];

/// Views that say each window once.
pub const FINAL: &[(&str, &str)] = &[
    (
        "final_tumbled",
        "SELECT window_start, kind, count(*) AS n, sum(value) AS s FROM TUMBLE(events, at, INTERVAL '1 second')
         GROUP BY window_start, kind",
    ),
    (
        "final_sessions",
        "SELECT kind, window_start, window_end, count(*) AS n, min(value) AS least
         FROM SESSION(events, at, INTERVAL '300 milliseconds', PARTITION BY kind) GROUP BY kind, window_start, window_end",
    ),
];

/// Views whose query fails over some rows, so that they cannot be verified.
pub const UNVERIFIED: [&str; 1] = ["shares"];

/// Those that are subscribed to.
pub const WATCHED: [&str; 11] = [
    "balances",
    "clicked_most",
    "total",
    "per_customer",
    "joined",
    "best",
    "full_joined",
    "final_tumbled",
    "final_sessions",
    "faulty",
    "large_sales",
];

/// Queries of views that come and go.
pub const PASSING: [&str; 7] = [
    "SELECT customer, count(*) AS n, sum(quantity) AS s FROM orders GROUP BY customer",
    "SELECT o.id, c.name FROM orders o LEFT JOIN customers c ON c.id = o.customer",
    "SELECT b.account, b.balance, t.total FROM balances b, total t",
    "SELECT kind, count(*) AS n, min(value) AS least FROM events GROUP BY kind",
    "SELECT window_start, count(*) AS n FROM TUMBLE(events, at, INTERVAL '2 seconds') GROUP BY window_start",
    "SELECT DISTINCT k, v FROM bag",
    "SELECT id, rank() OVER (PARTITION BY source ORDER BY amount DESC, id) AS place FROM transfers",
];
