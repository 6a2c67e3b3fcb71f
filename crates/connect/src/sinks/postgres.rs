//! Changes in a table of PostgreSQL, each once.
//!
//! A commit is one transaction: the rows, and in the table `tidemill_sinks` the epoch that they go up to. It begins with
//! a lock on the sink's row there, whose incarnation must be this one's. After a commit whose outcome is unknown, as when
//! the connection broke, the epoch recorded says whether it happened.
//!
//! Mode `append` inserts rows, for a view that never takes any back. Mode `upsert` keeps the table equal to the view: by
//! the columns of the primary key rows come, are replaced and go.

mod address;
mod link;
mod statements;

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidemill_delta::{Delta, Epoch, RowsByContent, consolidate};
use tokio_postgres::{Config, Transaction};

use self::link::{Link, failed, within};
use self::statements::Statements;
use super::rows::Mode;
use crate::options::Options;
use crate::sink::{Opening, Pace, Sink, SinkError};

/// Writes to a table.
pub struct PostgresSink {
    name: String,
    address: Config,
    schema: SchemaRef,
    statements: Statements,
    /// The columns of the key; none: rows are appended.
    key: Vec<usize>,
    interval: Duration,
    /// The longest that one step may take.
    timeout: Duration,
    incarnation: u64,
    waiting: Vec<(Epoch, Delta)>,
    link: Option<Link>,
}

/// The rows of a commit.
enum Change {
    Append(Vec<RecordBatch>),
    /// Keys of rows that went, and rows that came in the place of others or not.
    Upsert {
        gone: RecordBatch,
        rows: RecordBatch,
    },
}

impl PostgresSink {
    /// A sink from its options: `url` or `host`, `port`, `user`, `password`, `dbname`; `table`, `schema`, `mode`,
    /// `primary_key`, `commit_interval`, `timeout`.
    pub fn new(
        name: &str,
        options: &[(String, String)],
        schema: &SchemaRef,
        append_only: bool,
    ) -> Result<PostgresSink, SinkError> {
        let mut options = Options::new(options);
        let address = address::config(&mut options)?;
        let table = options.required("table")?;
        let key = options.columns("primary_key", schema)?;
        let default = if append_only { "append" } else { "upsert" };
        match (options.get("mode").unwrap_or(default), key.is_empty()) {
            ("append", false) => return Err(SinkError::fatal("option \"primary_key\" is for mode 'upsert'")),
            ("append", true) if !append_only => {
                let message = "the view takes rows back, which mode 'append' cannot express: use mode = 'upsert' and \
                               primary_key = '...'";
                return Err(SinkError::fatal(message));
            }
            ("append", true) | ("upsert", false) => {}
            ("upsert", true) => return Err(SinkError::fatal("mode 'upsert' needs option \"primary_key\"")),
            (other, _) => {
                return Err(SinkError::Fatal(format!("option \"mode\" is append or upsert, not \"{other}\"")));
            }
        }
        let statements = Statements::new(options.get("schema"), table, schema, &key);
        let interval = options.duration("commit_interval", super::COMMIT_INTERVAL)?;
        let timeout = options.duration("timeout", Duration::from_secs(300))?;
        options.finish()?;
        Ok(PostgresSink {
            name: name.to_owned(),
            address,
            schema: tidemill_delta::relaxed(schema),
            statements,
            key,
            interval,
            timeout,
            incarnation: 0,
            waiting: Vec::new(),
            link: None,
        })
    }

    fn change(&self) -> Result<Change, SinkError> {
        if self.key.is_empty() {
            let rows = self.waiting.iter().map(|(epoch, delta)| Mode::Append.rows(*epoch, delta));
            return Ok(Change::Append(rows.collect::<Result<_, _>>()?));
        }
        let deltas: Vec<Delta> = self.waiting.iter().map(|(_, delta)| delta.clone()).collect();
        let net = consolidate(&self.schema, &deltas).map_err(|e| SinkError::Fatal(e.to_string()))?;
        upsert(&net, &self.key)
    }

    /// Runs a transaction; a connection that failed in it is not used again.
    fn transact<T>(
        &mut self,
        work: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, SinkError>,
    ) -> Result<T, SinkError> {
        if self.link.as_ref().is_none_or(Link::is_closed) {
            self.link = None;
            self.link = Some(Link::new(&self.address, &self.statements, self.timeout)?);
        }
        let Some(link) = &mut self.link else { return Err(SinkError::retry("there is no connection")) };
        let done = link.transact(self.timeout, work);
        if done.is_err() {
            self.link = None;
        }
        done
    }
}

/// What net changes do to the rows by their keys.
fn upsert(net: &Delta, key: &[usize]) -> Result<Change, SinkError> {
    let wrong = |e: arrow::error::ArrowError| SinkError::Fatal(e.to_string());
    let (gone, came): (Vec<u32>, Vec<u32>) = (0..net.len() as u32).partition(|i| net.weight(*i as usize) < 0);
    let repeated = came.iter().any(|i| net.weight(*i as usize) > 1);
    let take = |rows: Vec<u32>| net.take(&rows.into()).map(|delta| delta.rows).map_err(wrong);
    let (gone, rows) = (take(gone)?.project(key).map_err(wrong)?, take(came)?);
    let keys = rows.project(key).map_err(wrong)?;
    if let Some(column) = (0..key.len()).find(|c| keys.column(*c).null_count() > 0) {
        let name = keys.schema_ref().field(column).name().clone();
        return Err(SinkError::Fatal(format!("a row's \"{name}\" is null, which a primary key cannot be")));
    }
    let content = RowsByContent::new(&keys).map_err(wrong)?;
    let same = |pair: &[u32]| content.compare(pair[0] as usize, pair[1] as usize).is_eq();
    if repeated || content.sorted().windows(2).any(same) {
        return Err(SinkError::fatal("two rows of the view have the same primary key"));
    }
    Ok(Change::Upsert { gone, rows })
}

impl Sink for PostgresSink {
    fn open(&mut self, opening: Opening) -> Result<Option<Epoch>, SinkError> {
        let (name, timeout, statements) = (self.name.clone(), self.timeout, self.statements.clone());
        let committed = self.transact(async |transaction| {
            within(timeout, statements.check(transaction)).await?;
            within(timeout, statements::take_over(transaction, &name, opening)).await
        })?;
        self.incarnation = opening.incarnation;
        Ok(committed)
    }

    fn write(&mut self, epoch: Epoch, delta: &Delta) -> Result<(), SinkError> {
        self.waiting.push((epoch, delta.clone()));
        Ok(())
    }

    fn commit(&mut self, epoch: Epoch) -> Result<(), SinkError> {
        let change = self.change()?;
        let (name, timeout, statements) = (self.name.clone(), self.timeout, self.statements.clone());
        let incarnation = self.incarnation;
        self.transact(async |transaction| {
            let recorded = within(timeout, statements::recorded(transaction, &name, incarnation)).await?;
            if recorded.is_some_and(|r| r >= epoch) {
                return Ok(());
            }
            match &change {
                Change::Append(rows) => statements.append(transaction, rows, timeout).await?,
                Change::Upsert { gone, rows } => statements.upsert(transaction, gone, rows, timeout).await?,
            }
            within(timeout, statements::record(transaction, &name, epoch)).await
        })?;
        self.waiting.clear();
        Ok(())
    }

    fn forget(&mut self) -> Result<(), SinkError> {
        let (name, incarnation, timeout) = (self.name.clone(), self.incarnation, self.timeout);
        self.transact(async |transaction| {
            let delete = "DELETE FROM tidemill_sinks WHERE sink = $1 AND incarnation = $2";
            let incarnation = statements::number(incarnation)?;
            let deleted = async { transaction.execute(delete, &[&name, &incarnation]).await.map_err(|e| failed(&e)) };
            within(timeout, deleted).await.map(|_| ())
        })
    }

    fn pace(&self) -> Pace {
        Pace { commit_interval: self.interval, local: false, retry_for: None }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("v", DataType::Utf8, true)]))
    }

    fn net(rows: &[(Option<i64>, &str, i64)]) -> Delta {
        let k = Int64Array::from_iter(rows.iter().map(|r| r.0));
        let v = StringArray::from_iter_values(rows.iter().map(|r| r.1));
        let rows_of = RecordBatch::try_new(schema(), vec![Arc::new(k), Arc::new(v)]).expect("valid");
        Delta::new(rows_of, Int64Array::from_iter_values(rows.iter().map(|r| r.2)))
    }

    #[test]
    fn keys_decide() {
        let change = upsert(&net(&[(Some(1), "a", -1), (Some(1), "b", 1), (Some(2), "x", -1), (None, "y", -1)]), &[0]);
        let Ok(Change::Upsert { gone, rows }) = change else { panic!("an upsert") };
        assert_eq!((gone.num_rows(), gone.num_columns(), rows.num_rows(), rows.num_columns()), (3, 1, 1, 2));
        let refused = |rows: &[(Option<i64>, &str, i64)]| upsert(&net(rows), &[0]).err().map(|e| e.to_string());
        let twice = Some("two rows of the view have the same primary key".to_owned());
        assert_eq!(refused(&[(Some(1), "a", 1), (Some(1), "b", 1)]), twice);
        assert_eq!(refused(&[(Some(1), "a", 2)]), twice);
        assert!(refused(&[(None, "a", 1)]).is_some_and(|e| e.contains("\"k\" is null")));
    }

    #[test]
    fn options_are_checked() {
        let new = |pairs: &[(&str, &str)], append_only| {
            let all = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Vec<_>>();
            PostgresSink::new("s", &all, &schema(), append_only).map(|_| ()).map_err(|e| e.to_string())
        };
        let address = ("url", "postgres://ann:hidden@db.example:5433/shop");
        assert_eq!(new(&[address, ("table", "t")], true), Ok(()));
        let error = new(&[address, ("table", "t"), ("mode", "append")], false).expect_err("refused");
        assert!(error.contains("takes rows back"), "{error}");
        let error = new(&[address, ("table", "t")], false).expect_err("refused");
        assert!(error.contains("primary_key"), "{error}");
        assert_eq!(new(&[address, ("table", "t"), ("primary_key", "k")], false), Ok(()));
        let error = new(&[address, ("table", "t"), ("primary_key", "k, z")], false).expect_err("refused");
        assert!(error.contains("no column \"z\""), "{error}");
        for url in ["postgres://ann:hidden@db:port/x", "host=x password=hidden", "postgres://ann:hidden@db/x?hidden=1"]
        {
            let error = new(&[("url", url), ("table", "t")], true).expect_err("refused");
            assert!(error.contains("\"url\"") && !error.contains("hidden"), "{error}");
        }
        assert!(new(&[address, ("host", "x"), ("table", "t")], true).is_err());
        assert_eq!(new(&[("host", "x"), ("user", "u"), ("password", "p"), ("table", "t")], true), Ok(()));
    }
}
