//! Prepared statements and portals.

use std::collections::VecDeque;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use pgwire::api::Type;
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{BindComplete, CloseComplete, ParseComplete, PortalSuspended};
use pgwire::messages::response::EmptyQueryResponse;
use tidemill_engine::{
    Description, Param, Response, SqlError, Statement, StatementKind, Subscription, change_schema, parse,
};

use super::connection::{Connection, counted, guarded};
use super::failure::Failure;
use super::frame::{Bind, Frontend, Target};
use super::params;
use super::rows::{RowFormat, Rows};
use super::types;

/// How many statements and portals a session may keep.
const KEPT: usize = 10_000;

/// A statement that was parsed and described.
#[derive(Clone)]
pub struct Prepared {
    /// `None` if there was nothing to parse.
    statement: Option<Statement>,
    /// Types that the client named.
    declared: Vec<u32>,
    /// All parameters' types.
    params: Vec<Type>,
    /// The columns it returns.
    schema: Option<SchemaRef>,
}

/// A statement with values, about to run or under way.
pub struct Portal {
    prepared: Prepared,
    params: Vec<Param>,
    formats: Vec<i16>,
    running: Option<Running>,
}

/// A portal that has begun to give rows.
struct Running {
    format: RowFormat,
    current: Option<(Rows, usize)>,
    rest: VecDeque<RecordBatch>,
    live: Option<Subscription>,
    tag: String,
}

fn missing(kind: &str, name: &str, code: &'static str) -> SqlError {
    SqlError::new(code, format!("{kind} \"{name}\" does not exist"))
}

impl Connection {
    /// Answers a message of the extended protocol.
    pub(super) async fn answer(&mut self, message: Frontend) -> Result<(), Failure> {
        match message {
            Frontend::Parse { name, query, types } => self.parse(name, &query, types).await,
            Frontend::Bind(bind) => self.bind(bind),
            Frontend::Describe(Target::Statement(name)) => self.describe_statement(&name),
            Frontend::Describe(Target::Portal(name)) => self.describe_portal(&name),
            Frontend::Execute { portal, max_rows } => self.execute(&portal, max_rows).await,
            Frontend::Close(Target::Statement(name)) => {
                self.statements.remove(&name);
                Ok(self.outgoing.put(&CloseComplete::new())?)
            }
            Frontend::Close(Target::Portal(name)) => {
                self.portals.remove(&name);
                Ok(self.outgoing.put(&CloseComplete::new())?)
            }
            _ => Ok(()),
        }
    }

    async fn parse(&mut self, name: String, query: &str, declared: Vec<u32>) -> Result<(), Failure> {
        if !name.is_empty() && self.statements.contains_key(&name) {
            return Err(SqlError::new("42P05", format!("prepared statement \"{name}\" already exists")).into());
        }
        if self.statements.len() >= KEPT {
            return Err(SqlError::new("54000", format!("more than {KEPT} prepared statements in one session")).into());
        }
        let mut statements = parse(query)?;
        statements.retain(|s| !matches!(s.kind, StatementKind::Empty));
        if statements.len() > 1 {
            let message = "cannot insert multiple commands into a prepared statement";
            return Err(SqlError::new("42601", message).into());
        }
        let prepared = match statements.pop() {
            None => Prepared { statement: None, declared, params: Vec::new(), schema: None },
            Some(statement) => self.prepare(statement, declared).await?,
        };
        self.statements.insert(name, prepared);
        Ok(self.outgoing.put(&ParseComplete::new())?)
    }

    async fn prepare(&mut self, statement: Statement, declared: Vec<u32>) -> Result<Prepared, Failure> {
        self.entry.cancel.reset();
        let types = params::declared_types(&declared);
        let work = self.session.describe(&statement, &types);
        let described = guarded(&self.entry.cancel, &mut self.incoming, work).await;
        let Description { params, schema } = described.map_err(|failure| shift(failure, statement.offset))?;
        let named = |i: usize| declared.get(i).and_then(|oid| Type::from_oid(*oid)).filter(|t| *t != Type::UNKNOWN);
        let params = params.iter().enumerate().map(|(i, t)| named(i).unwrap_or_else(|| types::of_type(t))).collect();
        Ok(Prepared { statement: Some(statement), declared, params, schema })
    }

    fn bind(&mut self, bind: Bind) -> Result<(), Failure> {
        let prepared = self.statements.get(&bind.statement);
        let prepared = prepared.ok_or_else(|| missing("prepared statement", &bind.statement, "26000"))?.clone();
        if !bind.portal.is_empty() && self.portals.contains_key(&bind.portal) {
            return Err(SqlError::new("42P03", format!("cursor \"{}\" already exists", bind.portal)).into());
        }
        if self.portals.len() >= KEPT {
            return Err(SqlError::new("54000", format!("more than {KEPT} portals in one session")).into());
        }
        let params = params::read(&bind.values, &bind.formats, &prepared.declared, &prepared.params)?;
        if let Some(schema) = &prepared.schema {
            RowFormat::new(schema, &bind.results)?;
        }
        self.portals.insert(bind.portal, Portal { prepared, params, formats: bind.results, running: None });
        Ok(self.outgoing.put(&BindComplete::new())?)
    }

    fn describe_statement(&mut self, name: &str) -> Result<(), Failure> {
        let prepared = self.statements.get(name).ok_or_else(|| missing("prepared statement", name, "26000"))?;
        let params = prepared.params.iter().map(Type::oid).collect();
        self.outgoing.put(&ParameterDescription::new(params))?;
        let schema = prepared.schema.clone();
        self.describe_rows(schema, &[])
    }

    fn describe_portal(&mut self, name: &str) -> Result<(), Failure> {
        let portal = self.portals.get(name).ok_or_else(|| missing("portal", name, "34000"))?;
        let (schema, formats) = (portal.prepared.schema.clone(), portal.formats.clone());
        self.describe_rows(schema, &formats)
    }

    fn describe_rows(&mut self, schema: Option<SchemaRef>, formats: &[i16]) -> Result<(), Failure> {
        match schema {
            None => Ok(self.outgoing.put(&NoData::new())?),
            Some(schema) => Ok(self.outgoing.put(&RowFormat::new(&schema, formats)?.description(&schema))?),
        }
    }

    async fn execute(&mut self, name: &str, max_rows: usize) -> Result<(), Failure> {
        // Taken out while it runs; a portal that fails is gone.
        let mut portal = self.portals.remove(name).ok_or_else(|| missing("portal", name, "34000"))?;
        self.entry.cancel.reset();
        if portal.running.is_none() {
            let Some(statement) = portal.prepared.statement.clone() else {
                self.outgoing.put(&EmptyQueryResponse::new())?;
                self.portals.insert(name.to_string(), portal);
                return Ok(());
            };
            let work = self.session.execute(&statement, &portal.params);
            let response =
                guarded(&self.entry.cancel, &mut self.incoming, work).await.map_err(|f| shift(f, statement.offset))?;
            portal.running = self.begin(&portal, response).await?;
        }
        if let Some(running) = &mut portal.running {
            self.give(running, max_rows).await?;
            self.portals.insert(name.to_string(), portal);
        }
        Ok(())
    }

    /// Answers at once what has no rows; else what gives them.
    async fn begin(&mut self, portal: &Portal, response: Response) -> Result<Option<Running>, Failure> {
        match response {
            Response::Rows { schema, batches, tag } => {
                if portal.prepared.schema.is_none() {
                    return Err(
                        SqlError::internal("the statement gave rows though it was described to give none").into()
                    );
                }
                let format = RowFormat::new(&schema, &portal.formats)?;
                Ok(Some(Running { format, current: None, rest: batches.into(), live: None, tag }))
            }
            Response::Subscribe(subscription) => {
                let schema = change_schema(subscription.schema());
                let format = RowFormat::new(&schema, &portal.formats)?;
                let (rest, tag) = (VecDeque::new(), "SUBSCRIBE".to_string());
                Ok(Some(Running { format, current: None, rest, live: Some(subscription), tag }))
            }
            Response::Done(tag) => {
                self.complete(&tag)?;
                Ok(None)
            }
            Response::CopyIn { table, columns, options } => {
                self.copy_in(&table, &columns, &options).await?;
                Ok(None)
            }
            Response::CopyOut { schema, rows, options } => {
                self.copy_out(&schema, rows, &options).await?;
                Ok(None)
            }
            Response::Empty => {
                self.outgoing.put(&EmptyQueryResponse::new())?;
                Ok(None)
            }
        }
    }

    /// Gives at most `max_rows` rows (0: all there are).
    async fn give(&mut self, running: &mut Running, max_rows: usize) -> Result<(), Failure> {
        let mut given = 0;
        loop {
            if max_rows > 0 && given == max_rows {
                return Ok(self.outgoing.put(&PortalSuspended::new())?);
            }
            let Some((rows, at)) = &mut running.current else {
                if self.next_batch(running).await? {
                    continue;
                }
                return Ok(self.complete(&counted(&running.tag, given))?);
            };
            if *at == rows.len() {
                running.current = None;
                continue;
            }
            rows.put(self.outgoing.buffer(), *at)?;
            *at += 1;
            given += 1;
            self.outgoing.flush_if_full().await?;
        }
    }

    /// Makes the next batch current; `false` if there is none.
    async fn next_batch(&mut self, running: &mut Running) -> Result<bool, Failure> {
        let batch = match (&mut running.live, running.rest.pop_front()) {
            (_, Some(batch)) => Some(batch),
            (Some(subscription), None) => {
                // What was sent so far must not wait for the next change.
                self.outgoing.flush().await?;
                self.next_change(subscription).await?
            }
            (None, None) => None,
        };
        let Some(batch) = batch else { return Ok(false) };
        running.current = Some((running.format.batch(&batch)?, 0));
        Ok(true)
    }
}

/// Positions count in what was sent.
fn shift(failure: Failure, offset: usize) -> Failure {
    match failure {
        Failure::Sql(mut error) => {
            error.position = error.position.map(|p| p + offset);
            Failure::Sql(error)
        }
        gone => gone,
    }
}
