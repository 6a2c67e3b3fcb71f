//! `GET /v1/views`, `/v1/status` and `/healthz`.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use serde::Serialize;
use tidemill_delta::{END_OF_TIME, Epoch, NO_WATERMARK};
use tidemill_engine::{EngineStatus, RelationKind, RelationStatus, SinkStatus};

use super::App;
use super::process::process_use;
use super::types::type_name;

/// A column of a relation.
#[derive(Serialize)]
struct ColumnJson {
    name: String,
    r#type: String,
    nullable: bool,
}

/// A relation at work.
#[derive(Serialize)]
pub(crate) struct RelationJson {
    /// Grows in the order of creation.
    id: u64,
    name: String,
    namespace: String,
    kind: &'static str,
    state: String,
    reason: Option<String>,
    columns: Vec<ColumnJson>,
    primary_key: Vec<String>,
    event_time: Option<String>,
    append_only: bool,
    rows_in: u64,
    applied: u64,
    late: u64,
    bad: u64,
    changes: u64,
    rows: u64,
    bytes: u64,
    recomputations: u64,
    /// Milliseconds since 1970; null before the first promise and when time has ended.
    watermark: Option<f64>,
    last_epoch: Epoch,
    bytes_read: Option<u64>,
    bytes_total: Option<u64>,
    sql: String,
}

/// A sink at work.
#[derive(Serialize)]
struct SinkJson {
    name: String,
    sql: String,
    state: &'static str,
    reason: Option<String>,
    rows: u64,
    epoch: Epoch,
}

/// The engine at work.
#[derive(Serialize)]
pub(crate) struct StatusJson {
    version: &'static str,
    epoch: Epoch,
    epochs_with_rows: u64,
    rows_in: u64,
    uptime_seconds: f64,
    subscriptions: u64,
    latency_p50_ms: f64,
    latency_p99_ms: f64,
    resident_bytes: Option<u64>,
    cpu_seconds: Option<f64>,
    /// The server's clock in milliseconds since 1970.
    now: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    relations: Option<Vec<RelationJson>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sinks: Option<Vec<SinkJson>>,
}

/// All relations and what they are doing.
pub(crate) async fn views(State(app): State<App>) -> impl IntoResponse {
    Json(status_json(&app.engine.status(), true))
}

/// The engine as a whole.
pub(crate) async fn status(State(app): State<App>) -> impl IntoResponse {
    Json(status_json(&app.engine.status(), false))
}

/// Whether the server can answer at all; asks nothing of the engine but its position.
pub(crate) async fn healthz(State(app): State<App>) -> impl IntoResponse {
    Json(serde_json::json!({ "status": "ok", "epoch": app.engine.epoch() }))
}

/// The status as JSON, with or without its relations.
pub(crate) fn status_json(status: &EngineStatus, with_relations: bool) -> StatusJson {
    let process = process_use();
    StatusJson {
        version: env!("CARGO_PKG_VERSION"),
        epoch: status.epoch,
        epochs_with_rows: status.epochs_with_rows,
        rows_in: status.rows_in,
        uptime_seconds: status.uptime_seconds,
        subscriptions: status.subscriptions,
        latency_p50_ms: status.epoch_latency_micros.0 as f64 / 1e3,
        latency_p99_ms: status.epoch_latency_micros.1 as f64 / 1e3,
        resident_bytes: process.map(|p| p.resident_bytes),
        cpu_seconds: process.map(|p| p.cpu_seconds),
        now: now_micros() as f64 / 1e3,
        relations: with_relations.then(|| status.relations.iter().map(relation_json).collect()),
        sinks: with_relations.then(|| status.sinks.iter().map(sink_json).collect()),
    }
}

fn sink_json(sink: &SinkStatus) -> SinkJson {
    SinkJson {
        name: sink.name.clone(),
        sql: sink.sql.clone(),
        state: sink.state,
        reason: sink.reason.clone(),
        rows: sink.rows,
        epoch: sink.epoch,
    }
}

fn relation_json(status: &RelationStatus) -> RelationJson {
    let relation = &status.relation;
    let name_of = |column: &usize| relation.schema.fields().get(*column).map(|f| f.name().clone());
    RelationJson {
        id: relation.id,
        name: relation.name.clone(),
        namespace: relation.namespace.clone(),
        kind: kind_name(relation.kind),
        state: status.state.clone(),
        reason: status.reason.clone(),
        columns: relation
            .schema
            .fields()
            .iter()
            .map(|f| ColumnJson { name: f.name().clone(), r#type: type_name(f), nullable: f.is_nullable() })
            .collect(),
        primary_key: relation.primary_key.iter().filter_map(name_of).collect(),
        event_time: relation.event_time.as_ref().and_then(|e| name_of(&e.column)),
        append_only: relation.append_only,
        rows_in: status.rows_in,
        applied: status.applied,
        late: status.late,
        bad: status.bad,
        changes: status.changes,
        rows: status.rows,
        bytes: status.bytes,
        recomputations: status.recomputations,
        watermark: status.watermark.filter(|w| *w != NO_WATERMARK && *w != END_OF_TIME).map(|w| w as f64 / 1e3),
        last_epoch: status.last_epoch,
        bytes_read: status.progress.map(|p| p.0),
        bytes_total: status.progress.map(|p| p.1),
        sql: relation.sql.clone(),
    }
}

/// The word for a kind of relation.
pub(crate) fn kind_name(kind: RelationKind) -> &'static str {
    match kind {
        RelationKind::Table => "table",
        RelationKind::Source => "source",
        RelationKind::View => "view",
        RelationKind::MaterializedView => "materialized view",
        RelationKind::System => "system",
    }
}

/// The wall clock in microseconds since 1970; only to say how far watermarks are behind it.
#[allow(clippy::disallowed_methods, reason = "for people, not for answers")]
pub(crate) fn now_micros() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}

/// Relations made up for tests.
#[cfg(test)]
pub(crate) mod testing {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};
    use tidemill_engine::{Relation, RelationKind, RelationStatus};

    /// A table with one column at work.
    pub(crate) fn relation_status(name: &str) -> RelationStatus {
        let relation = Relation {
            id: Default::default(),
            namespace: "public".into(),
            name: name.into(),
            kind: RelationKind::Table,
            schema: Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)])),
            primary_key: vec![0],
            append_only: false,
            event_time: None,
            generated: Vec::new(),
            retention: None,
            defaults: Vec::new(),
            bounds: Vec::new(),
            definition: None,
            sql: format!("CREATE TABLE {name} (id BIGINT PRIMARY KEY)"),
        };
        RelationStatus {
            relation: Arc::new(relation),
            state: "running".into(),
            reason: None,
            rows_in: 0,
            applied: 0,
            late: 0,
            bad: 0,
            changes: 0,
            rows: 0,
            bytes: 0,
            recomputations: 0,
            watermark: None,
            last_epoch: 0,
            progress: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lists_its_columns_and_key() {
        let mut table = testing::relation_status("t");
        table.watermark = Some(NO_WATERMARK);
        table.progress = Some((5, 10));
        let status = EngineStatus { epoch: 3, relations: vec![table], ..Default::default() };
        let json = serde_json::to_value(status_json(&status, true)).expect("JSON");
        assert_eq!(json["epoch"], 3);
        let t = &json["relations"][0];
        assert_eq!(t["columns"][0]["type"], "bigint");
        assert_eq!(t["primary_key"][0], "id");
        assert!(t["watermark"].is_null());
        assert_eq!(t["bytes_total"], 10);
        assert!(serde_json::to_value(status_json(&status, false)).expect("JSON").get("relations").is_none());
    }
}
