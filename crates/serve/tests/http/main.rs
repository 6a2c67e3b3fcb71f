//! The HTTP door against a running engine.

mod client;

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow::ipc::writer::StreamWriter;
use client::Server;
use serde_json::json;

const ORDERS: &str = "CREATE TABLE orders (id BIGINT PRIMARY KEY, item TEXT, price DOUBLE PRECISION)";

const TOTALS: &str = "CREATE MATERIALIZED VIEW totals AS SELECT item, count(*) AS n FROM orders GROUP BY item";

async fn shop() -> Server {
    let server = Server::start().await;
    server.sql(&format!("{ORDERS}; {TOTALS}")).await;
    server
}

fn arrow_stream() -> Vec<u8> {
    let id: ArrayRef = Arc::new(Int32Array::from(vec![7, 8]));
    let item: ArrayRef = Arc::new(StringArray::from(vec!["milk", "milk"]));
    let batch = RecordBatch::try_from_iter([("id", id), ("item", item)]).expect("batch");
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).expect("writer");
    writer.write(&batch).expect("written");
    writer.into_inner().expect("finished")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_come_in_in_every_form() {
    let server = shop().await;
    let sent: [(&str, Vec<u8>); 4] = [
        ("application/x-ndjson", b"{\"id\":1,\"item\":\"tea\",\"price\":2.5}\n{\"id\":2,\"item\":\"tea\"}\n".to_vec()),
        ("application/json", b"[{\"id\":3,\"item\":\"tea\"},{\"id\":4,\"item\":\"cake\"}]".to_vec()),
        ("text/csv", b"item,id\ncake,5\ncake,6\n".to_vec()),
        ("application/vnd.apache.arrow.stream", arrow_stream()),
    ];
    let mut epoch = 0;
    for (kind, body) in sent {
        let answer = server.ingest("orders", kind, body).await;
        assert_eq!(answer.status, 200, "{kind}: {}", answer.body);
        let answer = answer.json();
        assert_eq!((&answer["accepted"], &answer["refused"]), (&json!(2), &json!(0)), "{kind}");
        assert!(answer["epoch"].as_u64().expect("epoch") > epoch, "{kind}");
        epoch = answer["epoch"].as_u64().expect("epoch");
    }
    let rows = server.rows("SELECT item, n FROM totals ORDER BY item").await;
    assert_eq!(rows, json!([["cake", 3], ["milk", 2], ["tea", 3]]));
    let rows = server.rows("SELECT price FROM orders WHERE id <= 2 ORDER BY id").await;
    assert_eq!(rows, json!([[2.5], [null]]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_records_are_listed_and_kept() {
    let server = shop().await;
    let body = "{\"id\":1,\"item\":\"tea\"}\n{\"id\":\"x\"}\n{\"item\":\"no id\"}\nnonsense\n";
    let answer = server.ingest("orders", "application/x-ndjson", body).await.json();
    assert_eq!((&answer["accepted"], &answer["refused"]), (&json!(1), &json!(3)));
    let lines: Vec<_> = answer["errors"].as_array().expect("errors").iter().map(|e| e["line"].clone()).collect();
    assert_eq!(lines, [json!(2), json!(3), json!(4)]);
    assert_eq!(server.rows("SELECT count(*) FROM orders$bad").await, json!([[3]]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_are_taken_too() {
    let server = shop().await;
    let body: String = (0..60_000).map(|i| format!("{{\"id\":{i},\"item\":\"tea\",\"price\":1.5}}\n")).collect();
    let answer = server.ingest("orders", "application/x-ndjson", body).await;
    assert_eq!(answer.json()["accepted"], 60_000, "{}", answer.body);
    assert_eq!(server.rows("SELECT n FROM totals").await, json!([[60_000]]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_make_no_sense_get_an_error_as_json() {
    let server = shop().await;
    let (ok, csv) = ("application/x-ndjson", "text/csv");
    let huge = [("Content-Length", "90000000")];
    let cases = [
        (server.ingest("nothing", ok, "{}").await, 404, "42P01"),
        (server.ingest("totals", ok, "{}").await, 400, "42809"),
        (server.ingest("orders", "application/xml", "<a/>").await, 415, "0A000"),
        (server.ingest("orders", ok, "hello").await, 400, "22P02"),
        (server.request("POST", "/v1/ingest/orders?wait=forever", &[], b"{}").await, 400, "22023"),
        (
            server.request("POST", "/v1/ingest/orders?delimiter=%22", &[("Content-Type", csv)], b"id\n1").await,
            400,
            "22023",
        ),
        (server.request("POST", "/v1/ingest/orders", &huge, b"").await, 413, "54000"),
        (server.get("/v1/ingest/orders").await, 405, "0A000"),
        (server.request("POST", "/v1/subscribe/totals", &[], b"").await, 405, "0A000"),
        (server.get("/v1/nonsense").await, 404, "42P01"),
        (server.get("/v1/subscribe/%ff").await, 400, "22P02"),
        (server.get("/v1/subscribe/nothing").await, 404, "42P01"),
        (server.get("/v1/subscribe/totals?after=x").await, 400, "22023"),
        (server.request("POST", "/v1/sql", &[("Origin", "http://evil.example")], b"SELECT 1").await, 403, "28000"),
    ];
    for (answer, status, code) in cases {
        assert_eq!((answer.status, answer.error_code().as_str()), (status, code), "{}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_answer_with_columns_rows_and_tags() {
    let server = shop().await;
    let results = server.sql("INSERT INTO orders VALUES (1, 'tea', 2); SELECT id, item FROM orders").await;
    assert_eq!(results[0]["tag"], "INSERT 0 1");
    assert_eq!(results[1]["columns"], json!([{"name": "id", "type": "bigint"}, {"name": "item", "type": "text"}]));
    assert_eq!(results[1]["rows"], json!([[1, "tea"]]));
    let body = br#"{"sql": "SELECT item FROM orders WHERE id = $1", "params": [1]}"#;
    let answer = server.request("POST", "/v1/sql", &[("Content-Type", "application/json")], body).await;
    assert_eq!(answer.json()["results"][0]["rows"], json!([["tea"]]), "{}", answer.body);
    let cut = server.request("POST", "/v1/sql?limit=2", &[], b"VALUES (1), (2), (3)").await.json();
    assert_eq!(cut["results"][0]["rows"].as_array().map(Vec::len), Some(2));
    assert_eq!((&cut["results"][0]["truncated"], &cut["results"][0]["row_count"]), (&json!(true), &json!(3)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_points_into_the_script_and_keeps_what_came_before() {
    let server = shop().await;
    let script = "SELECT 1; SELECT nothing FROM orders";
    let answer = server.request("POST", "/v1/sql", &[], script.as_bytes()).await;
    assert_eq!(answer.status, 400);
    let json = answer.json();
    assert_eq!(json["results"][0]["rows"], json!([[1]]));
    assert_eq!(json["error"]["code"], "42703");
    assert_eq!(json["error"]["position"], script.find("nothing").expect("there") as u64 + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_begins_with_the_rows_and_goes_on_with_changes() {
    let server = shop().await;
    server.ingest("orders", "application/x-ndjson", "{\"id\":1,\"item\":\"tea\"}").await;
    let mut events = server.events("/v1/subscribe/totals", &[]).await;
    let first = events.next().await;
    assert_eq!(first.kind, "snapshot");
    assert_eq!((&first.data["rows"], &first.data["diffs"]), (&json!([{"item": "tea", "n": 1}]), &json!([1])));
    server.ingest("orders", "application/x-ndjson", "{\"id\":2,\"item\":\"tea\"}").await;
    let change = events.next().await;
    assert_eq!(change.kind, "change");
    assert_eq!(change.id, change.data["epoch"].as_u64());
    assert!(change.id > first.id);
    let mut pairs: Vec<(i64, i64)> = change.data["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .zip(change.data["diffs"].as_array().expect("diffs"))
        .map(|(row, diff)| (row["n"].as_i64().expect("n"), diff.as_i64().expect("diff")))
        .collect();
    pairs.sort_unstable();
    assert_eq!(pairs, [(1, -1), (2, 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_comes_back_misses_nothing_and_sees_nothing_twice() {
    let server = shop().await;
    let mut events = server.events("/v1/subscribe/orders?snapshot=false", &[]).await;
    let order = |id: u64| format!("{{\"id\":{id},\"item\":\"tea\"}}");
    server.ingest("orders", "application/x-ndjson", order(1)).await;
    let seen = events.next().await;
    assert_eq!(seen.data["rows"][0]["id"], 1);
    drop(events);
    for id in 2..6 {
        server.ingest("orders", "application/x-ndjson", order(id)).await;
    }
    let last = seen.id.expect("an id").to_string();
    let mut events = server.events("/v1/subscribe/orders", &[("Last-Event-ID", &last)]).await;
    let mut ids = Vec::new();
    while ids.len() < 4 {
        let event = events.next().await;
        assert_eq!(event.kind, "change");
        let rows = event.data["rows"].as_array().expect("rows");
        ids.extend(rows.iter().map(|r| r["id"].as_u64().expect("id")));
    }
    assert_eq!(ids, [2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_from_another_life_is_gone() {
    let server = shop().await;
    let answer = server.request("GET", "/v1/subscribe/totals", &[("Last-Event-ID", "123456789")], b"").await;
    assert_eq!(answer.status, 410, "{}", answer.body);
    assert!(answer.json()["error"]["hint"].as_str().expect("a hint").contains("snapshot"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_snapshot_comes_in_parts_of_which_the_last_has_the_id() {
    let server = shop().await;
    let body: String = (0..5_000).map(|i| format!("{{\"id\":{i},\"item\":\"item {i}\"}}\n")).collect();
    server.ingest("orders", "application/x-ndjson", body).await;
    let mut events = server.events("/v1/subscribe/totals", &[]).await;
    let (mut rows, mut parts) = (0, 0);
    loop {
        let event = events.next().await;
        assert_eq!(event.kind, "snapshot");
        rows += event.data["rows"].as_array().expect("rows").len();
        parts += 1;
        assert_eq!(event.id.is_none(), event.data["more"] == true);
        if event.id.is_some() {
            break;
        }
    }
    assert_eq!(rows, 5_000);
    assert!(parts > 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_watches_several_views() {
    let server = shop().await;
    server.ingest("orders", "application/x-ndjson", "{\"id\":1,\"item\":\"tea\"}").await;
    let mut events = server.events("/v1/live?view=orders&view=totals&order=n&view=nothing", &[]).await;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let event = events.next().await;
        seen.push((event.data["view"].as_str().expect("a view").to_owned(), event.kind));
    }
    seen.sort();
    let expected = [("nothing", "lost"), ("orders", "rows"), ("totals", "rows")];
    assert_eq!(seen, expected.map(|(v, k)| (v.to_owned(), k.to_owned())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_and_metrics_tell_what_is_going_on() {
    let server = shop().await;
    server.ingest("orders", "application/x-ndjson", "{\"id\":1,\"item\":\"tea\"}\nbad\n").await;
    assert_eq!(server.get("/healthz").await.json()["status"], "ok");
    let views = server.get("/v1/views").await.json();
    let relations = views["relations"].as_array().expect("relations");
    let orders = relations.iter().find(|r| r["name"] == "orders").expect("orders");
    assert_eq!((&orders["kind"], &orders["applied"], &orders["bad"]), (&json!("table"), &json!(1), &json!(1)));
    assert!(relations.iter().any(|r| r["name"] == "totals" && r["kind"] == "materialized view"));
    assert!(server.get("/v1/status").await.json()["epoch"].as_u64() > Some(0));
    let metrics = server.get("/metrics").await;
    assert!(metrics.head.contains("text/plain"), "{}", metrics.head);
    let late_or_bad =
        metrics.body.lines().find(|l| l.starts_with("tidemill_relation_rows_bad_total{") && l.contains("\"orders\""));
    assert!(late_or_bad.is_some_and(|l| l.ends_with(" 1")), "{}", metrics.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_served_with_a_policy_and_a_tag() {
    let server = Server::start().await;
    let page = server.get("/").await;
    assert_eq!(page.status, 200);
    let head = page.head.to_lowercase();
    assert!(head.contains("content-security-policy: default-src 'none'") && head.contains("text/html"), "{head}");
    let tag = head.lines().find_map(|l| l.strip_prefix("etag: ")).expect("a tag").to_owned();
    let again = server.request("GET", "/", &[("If-None-Match", &tag)], b"").await;
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    assert_eq!(server.get("/page/main.js").await.status, 200);
    assert_eq!(server.get("/page/nothing").await.status, 404);
}
