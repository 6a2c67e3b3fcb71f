//! `SHOW` and `EXPLAIN`.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidemill_delta::{END_OF_TIME, NO_WATERMARK, batch};
use tidemill_plan::explain;
use tidemill_sql::{RelationKind, ShowWhat, SqlError, StatementKind, parse, show_schema, state};

use super::{Response, Session};
use crate::catalog::kind_name;
use crate::status::{DurabilityStatus, EngineStatus, RelationStatus};

type Cells = Vec<Option<String>>;

impl Session {
    pub(super) fn show(&self, what: &ShowWhat) -> Result<Response, SqlError> {
        let rows: Vec<Cells> = match what {
            ShowWhat::Sources => relations(&self.engine.status(), &[RelationKind::Source], source_cells),
            ShowWhat::Tables => {
                relations(&self.engine.status(), &[RelationKind::Table, RelationKind::System], table_cells)
            }
            ShowWhat::Views => relations(&self.engine.status(), &[RelationKind::MaterializedView], view_cells),
            ShowWhat::Sinks => self.sink_rows(),
            ShowWhat::Epochs => {
                let status = self.engine.status();
                let (p50, p99) = status.epoch_latency_micros;
                let all = [status.epoch, status.epochs_with_rows, p50, p99];
                vec![all.iter().map(|v| Some(v.to_string())).collect()]
            }
            ShowWhat::Checkpoints => self.engine.status().durability.iter().map(checkpoint_cells).collect(),
            ShowWhat::Create(name) => {
                let catalog = self.engine.inner.catalog();
                let sql = match catalog.sink(&name.name) {
                    Some(sink) => sink.sql.clone(),
                    None => catalog.find(name)?.sql.clone(),
                };
                vec![vec![Some(sql)]]
            }
            ShowWhat::Columns(name) => {
                let relation = self.engine.inner.catalog().find(name)?;
                let cells = |f: &Arc<Field>| {
                    let nullable = if f.is_nullable() { "yes" } else { "no" };
                    vec![Some(f.name().clone()), Some(tidemill_sql::type_name(f)), Some(nullable.into())]
                };
                relation.schema.fields().iter().map(cells).collect()
            }
            ShowWhat::Parameter(name) => {
                let value = self.parameter(name).ok_or_else(|| {
                    let message = format!("unrecognized configuration parameter \"{name}\"");
                    SqlError::new("42704", message)
                })?;
                vec![vec![Some(value)]]
            }
            ShowWhat::All => {
                self.parameters.all().into_iter().map(|(name, value)| vec![Some(name), Some(value)]).collect()
            }
        };
        let schema = show_schema(what);
        let columns = (0..schema.fields().len())
            .map(|c| Arc::new(rows.iter().map(|r| r[c].clone()).collect::<StringArray>()) as ArrayRef)
            .collect();
        let rows = batch(schema.clone(), columns, rows.len());
        Ok(Response::Rows { schema, batches: vec![rows], tag: "SHOW".into() })
    }

    fn sink_rows(&self) -> Vec<Cells> {
        let status = self.engine.status();
        let cells = |sink: &crate::status::SinkStatus| {
            let numbers = (sink.epoch.to_string(), sink.rows.to_string());
            let state = Some(sink.state.to_owned());
            vec![Some(sink.name.clone()), state, Some(numbers.0), Some(numbers.1), sink.reason.clone()]
        };
        status.sinks.iter().map(cells).collect()
    }

    pub(super) fn explain(&self, what: &StatementKind) -> Result<Response, SqlError> {
        let inner = &self.engine.inner;
        let catalog = inner.catalog();
        let plan =
            |query: &tidemill_sql::Query, on_close| inner.planner.plan_view(catalog.as_ref(), query, on_close, &[]);
        let planned = match what {
            StatementKind::Query(query) => plan(query, false)?,
            StatementKind::CreateView(create) => plan(&create.query, create.on_close)?,
            // `EXPLAIN v`, for a view that exists.
            StatementKind::Subscribe(to) => {
                let relation = catalog.find(&to.name)?;
                let statement = parse(&relation.sql)?.into_iter().next();
                match statement.map(|s| s.kind) {
                    Some(StatementKind::CreateView(create)) => plan(&create.query, create.on_close)?,
                    _ => {
                        let message = format!("\"{}\" is a {}, not a view", relation.name, kind_name(relation.kind));
                        return Err(SqlError::new(state::WRONG_OBJECT_TYPE, message));
                    }
                }
            }
            _ => return Err(SqlError::not_supported("EXPLAIN is for queries and views")),
        };
        let lines = explain(&planned.dataflow);
        let schema = Arc::new(Schema::new(vec![Field::new("QUERY PLAN", DataType::Utf8, true)]));
        let len = lines.len();
        let rows = batch(schema.clone(), vec![Arc::new(StringArray::from(lines))], len);
        Ok(Response::Rows { schema, batches: vec![rows], tag: "EXPLAIN".into() })
    }
}

fn checkpoint_cells(status: &DurabilityStatus) -> Cells {
    let state = if status.checkpoint_failed.is_some() { "retrying" } else { "running" };
    let at = status.checkpoints_at.clone().unwrap_or_else(|| "the data folder".into());
    let mut cells = vec![Some(at), Some(state.to_owned())];
    cells
        .extend([status.checkpoint_epoch, status.checkpoints, status.checkpoint_bytes, status.log_records].map(number));
    cells.push(status.checkpoint_failed.clone());
    cells
}

fn relations(status: &EngineStatus, kinds: &[RelationKind], cells: fn(&RelationStatus) -> Cells) -> Vec<Cells> {
    status.relations.iter().filter(|r| kinds.contains(&r.relation.kind)).map(cells).collect()
}

fn number(value: u64) -> Option<String> {
    Some(value.to_string())
}

/// A watermark as text; none while nothing is promised.
fn time(watermark: Option<i64>) -> Option<String> {
    match watermark? {
        NO_WATERMARK => None,
        END_OF_TIME => Some("infinity".into()),
        micros => {
            let array = TimestampMicrosecondArray::from(vec![micros]);
            let options = FormatOptions::default().with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"));
            ArrayFormatter::try_new(&array, &options).ok().map(|f| f.value(0).to_string())
        }
    }
}

fn source_cells(s: &RelationStatus) -> Cells {
    let counts = [s.rows_in, s.applied, s.late, s.bad].map(number);
    let mut cells = vec![Some(s.relation.name.clone()), Some(s.state.clone())];
    cells.extend(counts);
    cells.extend([time(s.watermark), s.reason.clone()]);
    cells
}

fn table_cells(s: &RelationStatus) -> Cells {
    let counts = [s.rows, s.rows_in, s.applied, s.late, s.bad].map(number);
    let mut cells = vec![Some(s.relation.name.clone()), Some(s.state.clone())];
    cells.extend(counts);
    cells.extend([time(s.watermark), s.reason.clone()]);
    cells
}

fn view_cells(s: &RelationStatus) -> Cells {
    let counts = [s.rows, s.changes, s.bytes].map(number);
    let mut cells = vec![Some(s.relation.name.clone()), Some(s.state.clone())];
    cells.extend(counts);
    cells.extend([time(s.watermark), number(s.last_epoch), s.reason.clone()]);
    cells
}
