//! `GET /metrics` in Prometheus' text form.

use std::fmt::Write;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use tidemill_delta::{END_OF_TIME, NO_WATERMARK};
use tidemill_engine::{DurabilityStatus, EngineStatus, RelationStatus, SinkStatus};

use super::App;
use super::process::{ProcessUse, process_use};
use super::status::{kind_name, now_micros};

/// All metrics.
pub(crate) async fn metrics(State(app): State<App>) -> impl IntoResponse {
    let text = render(&app.engine.status(), process_use(), now_micros());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

/// Text under construction. Writing to a `String` cannot fail, so results are dropped.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn per_relation(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        relations: &[RelationStatus],
        value: impl Fn(&RelationStatus) -> Option<f64>,
    ) {
        self.family(name, kind, help);
        for status in relations {
            if let Some(value) = value(status) {
                let _ = writeln!(self.0, "{name}{{{}}} {value}", labels(status));
            }
        }
    }
}

fn labels(status: &RelationStatus) -> String {
    let relation = &status.relation;
    format!(
        "namespace=\"{}\",relation=\"{}\",kind=\"{}\"",
        escape(&relation.namespace),
        escape(&relation.name),
        kind_name(relation.kind)
    )
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn render(status: &EngineStatus, process: Option<ProcessUse>, now: i64) -> String {
    let mut text = Text(String::with_capacity(4096));
    engine_metrics(&mut text, status);
    relation_metrics(&mut text, &status.relations, now);
    sink_metrics(&mut text, status);
    if let Some(durability) = &status.durability {
        durability_metrics(&mut text, durability);
    }
    if let Some(process) = process {
        let resident = process.resident_bytes as f64;
        text.single("process_resident_memory_bytes", "gauge", "Memory in use.", resident);
        text.single("process_cpu_seconds_total", "counter", "Processor time used.", process.cpu_seconds);
    }
    text.0
}

fn engine_metrics(text: &mut Text, status: &EngineStatus) {
    text.single("tidemill_epoch", "gauge", "The last epoch that readers see.", status.epoch as f64);
    let with_rows = status.epochs_with_rows as f64;
    text.single("tidemill_epochs_with_rows_total", "counter", "Epochs that had rows.", with_rows);
    text.single("tidemill_rows_in_total", "counter", "Rows that came in.", status.rows_in as f64);
    text.single("tidemill_uptime_seconds", "gauge", "Seconds since the start.", status.uptime_seconds);
    text.single("tidemill_subscriptions", "gauge", "Subscriptions open now.", status.subscriptions as f64);
    let latency = "tidemill_epoch_latency_seconds";
    text.family(latency, "summary", "From the cut of an epoch to its publication, of the last epochs.");
    let (p50, p99) = status.epoch_latency_micros;
    let _ = writeln!(text.0, "{latency}{{quantile=\"0.5\"}} {}", p50 as f64 / 1e6);
    let _ = writeln!(text.0, "{latency}{{quantile=\"0.99\"}} {}", p99 as f64 / 1e6);
}

fn durability_metrics(text: &mut Text, status: &DurabilityStatus) {
    let flag = |set: bool| f64::from(u8::from(set));
    let records = status.log_records as f64;
    text.single("tidemill_log_records", "gauge", "Records of the durable log that are kept.", records);
    text.single("tidemill_log_paused", "gauge", "1 while nothing can be written.", flag(status.paused.is_some()));
    let epoch = status.checkpoint_epoch as f64;
    text.single("tidemill_checkpoint_epoch", "gauge", "The epoch of the last checkpoint.", epoch);
    text.single("tidemill_checkpoints_total", "counter", "Checkpoints written.", status.checkpoints as f64);
    let bytes = status.checkpoint_bytes as f64;
    text.single("tidemill_checkpoint_bytes", "gauge", "New bytes of the last checkpoint.", bytes);
    let failed = flag(status.checkpoint_failed.is_some());
    text.single("tidemill_checkpoint_failed", "gauge", "1 when the last checkpoint could not be written.", failed);
}

fn relation_metrics(text: &mut Text, relations: &[RelationStatus], now: i64) {
    let counters: [(&str, &str, fn(&RelationStatus) -> u64); 6] = [
        ("tidemill_relation_rows_in_total", "Rows that came in.", |s| s.rows_in),
        ("tidemill_relation_rows_applied_total", "Rows that came in and were applied.", |s| s.applied),
        ("tidemill_relation_rows_late_total", "Rows that came in behind the watermark.", |s| s.late),
        ("tidemill_relation_rows_bad_total", "Records that could not be decoded.", |s| s.bad),
        ("tidemill_relation_changes_total", "Changes that came out.", |s| s.changes),
        ("tidemill_relation_recomputations_total", "Partitions and groups recomputed for lack of a rule.", |s| {
            s.recomputations
        }),
    ];
    for (name, help, value) in counters {
        text.per_relation((name, "counter", help), relations, |s| Some(value(s) as f64));
    }
    let gauges: [(&str, &str, fn(&RelationStatus) -> u64); 3] = [
        ("tidemill_relation_rows", "Rows held now.", |s| s.rows),
        ("tidemill_relation_state_bytes", "Bytes held by rows and operators.", |s| s.bytes),
        ("tidemill_relation_last_epoch", "The last epoch in which it changed.", |s| s.last_epoch),
    ];
    for (name, help, value) in gauges {
        text.per_relation((name, "gauge", help), relations, |s| Some(value(s) as f64));
    }
    let stopped = ("tidemill_relation_stopped", "gauge", "1 when it stopped with an error.");
    text.per_relation(stopped, relations, |s| Some(f64::from(u8::from(s.reason.is_some()))));
    let lag = ("tidemill_relation_watermark_lag_seconds", "gauge", "How far the watermark is behind the clock.");
    text.per_relation(lag, relations, |s| watermark_lag(s, now));
}

fn sink_metrics(text: &mut Text, status: &EngineStatus) {
    let families: [(&str, &str, &str, fn(&SinkStatus) -> u64); 4] = [
        ("tidemill_sink_rows_total", "counter", "Changes delivered.", |s| s.rows),
        ("tidemill_sink_epoch", "gauge", "The last epoch delivered.", |s| s.epoch),
        ("tidemill_sink_stopped", "gauge", "1 when it stopped with an error.", |s| u64::from(s.state == "stopped")),
        ("tidemill_sink_retrying", "gauge", "1 while its destination does not take rows.", |s| {
            u64::from(s.state == "retrying")
        }),
    ];
    for (name, kind, help, value) in families {
        text.family(name, kind, help);
        for sink in &status.sinks {
            let _ = writeln!(text.0, "{name}{{sink=\"{}\"}} {}", escape(&sink.name), value(sink));
        }
    }
}

/// Seconds from the watermark to now; none before the first promise and after the end.
fn watermark_lag(status: &RelationStatus, now: i64) -> Option<f64> {
    let watermark = status.watermark.filter(|w| *w != NO_WATERMARK && *w != END_OF_TIME)?;
    Some(now.saturating_sub(watermark) as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::super::status::testing::relation_status;
    use super::*;

    #[test]
    fn renders_every_relation_with_escaped_labels() {
        let mut odd = relation_status("odd\"name");
        odd.rows_in = 7;
        odd.watermark = Some(1_000_000);
        let status =
            EngineStatus { epoch: 5, relations: vec![odd], epoch_latency_micros: (500, 2000), ..Default::default() };
        let text = render(&status, None, 3_500_000);
        assert!(text.contains("tidemill_epoch 5\n"));
        assert!(text.contains("relation=\"odd\\\"name\",kind=\"table\"} 7\n"));
        assert!(text.contains("tidemill_epoch_latency_seconds{quantile=\"0.99\"} 0.002\n"));
        let lag = text.lines().find(|l| l.starts_with("tidemill_relation_watermark_lag_seconds{"));
        assert!(lag.is_some_and(|l| l.ends_with(" 2.5")));
    }

    #[test]
    fn every_line_has_a_name_and_a_value() {
        let status = EngineStatus { relations: vec![relation_status("t")], ..Default::default() };
        let process = ProcessUse { resident_bytes: 1, cpu_seconds: 0.5 };
        for line in render(&status, Some(process), 0).lines().filter(|l| !l.starts_with('#')) {
            let (_, value) = line.rsplit_once(' ').expect("name and value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
