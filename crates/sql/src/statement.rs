//! Statements: PostgreSQL's through sqlparser, and the streaming ones.

mod balance;
mod copy;
mod create;
mod dialect;
mod limits;
mod options;
mod query;
mod reader;
mod relation;
mod repair;
mod retention;
mod session;
mod shown;
mod split;
#[cfg(test)]
mod tests;
mod time_options;
mod types;

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::tokenizer::TokenWithSpan;
use tidemill_delta::Micros;

use crate::{SqlError, state};
use reader::Reader;

pub(crate) use query::{expression_of, query_of};
pub(crate) use reader::{fold, is_word};
pub use retention::RetentionOptions;
pub use shown::with_other_values;
pub use split::{Piece, split};

/// One statement of a script.
#[derive(Clone, Debug)]
pub struct Statement {
    /// What it says.
    pub kind: StatementKind,
    /// Its text, without the semicolon.
    pub text: String,
    /// Where its text begins in the script, in characters from 0.
    pub offset: usize,
}

/// A possibly qualified name, folded to lower case unless quoted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectName {
    /// The namespace, if given.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// Where it stands in the statement, in characters from 1.
    pub position: Option<usize>,
}

/// What a statement says.
#[derive(Clone, Debug)]
pub enum StatementKind {
    /// `CREATE TABLE` or `CREATE SOURCE`.
    CreateRelation(Box<CreateRelation>),
    /// `CREATE [MATERIALIZED] VIEW`.
    CreateView(Box<CreateView>),
    /// `CREATE SINK`.
    CreateSink(Box<CreateSink>),
    /// `DROP ...`.
    Drop {
        /// Of what kind.
        kind: DropKind,
        /// Which.
        names: Vec<ObjectName>,
        /// Do not complain about missing ones.
        if_exists: bool,
        /// Dependents too.
        cascade: bool,
    },
    /// `SELECT`, `VALUES`, `TABLE t`, `WITH`.
    Query(Box<ast::Query>),
    /// `INSERT INTO`.
    Insert(Box<ast::Insert>),
    /// `UPDATE`.
    Update(Box<ast::Statement>),
    /// `DELETE FROM`.
    Delete(Box<ast::Delete>),
    /// `TRUNCATE t`.
    Truncate(Vec<ObjectName>),
    /// `COPY t [(columns)] FROM STDIN`.
    CopyFrom {
        /// Into which table.
        table: ObjectName,
        /// Which columns; empty: all.
        columns: Vec<String>,
        /// In what form.
        options: CopyOptions,
    },
    /// `COPY (statement) TO STDOUT`, `COPY t TO STDOUT`.
    CopyTo {
        /// A query or a `SUBSCRIBE`.
        what: Box<StatementKind>,
        /// In what form.
        options: CopyOptions,
    },
    /// `SUBSCRIBE [TO] v [AS OF epoch] [WITH SNAPSHOT | WITHOUT SNAPSHOT]`. Default: with snapshot,
    /// unless `AS OF` is given.
    Subscribe(SubscribeTo),
    /// `EXPLAIN [CREATE MATERIALIZED VIEW v AS] query`, `EXPLAIN [MATERIALIZED VIEW] v`: the dataflow.
    /// An existing view is named by a [`StatementKind::Subscribe`].
    Explain(Box<StatementKind>),
    /// `SHOW ...`.
    Show(ShowWhat),
    /// `VERIFY [MATERIALIZED VIEW | VIEW] v`: where a view differs from its query.
    Verify(ObjectName),
    /// `APPLY LATE FROM t$late [WHERE ...]`: late rows enter their table after all.
    ApplyLate {
        /// The side table.
        from: ObjectName,
        /// Which of its rows.
        query: Box<ast::Query>,
    },
    /// `ALTER MATERIALIZED VIEW | SOURCE | SINK name RESUME`: what has stopped goes on.
    Resume {
        /// Of what kind.
        kind: DropKind,
        /// Which.
        name: ObjectName,
    },
    /// `SET name = value`.
    Set {
        /// The parameter.
        name: String,
        /// Its value as text; `None` for `DEFAULT`.
        value: Option<String>,
    },
    /// `RESET name`, `RESET ALL`.
    Reset(Option<String>),
    /// `BEGIN`, `START TRANSACTION`.
    Begin,
    /// `COMMIT`, `END`.
    Commit,
    /// `ROLLBACK`, `ABORT`.
    Rollback,
    /// `DECLARE name CURSOR FOR statement`.
    Declare {
        /// The cursor.
        name: String,
        /// A query or a `SUBSCRIBE`.
        what: Box<StatementKind>,
    },
    /// `FETCH [FORWARD] n | ALL [FROM] name [WITH (timeout = '1s')]`.
    Fetch {
        /// The cursor.
        name: String,
        /// How many rows at most; `None` for all there are.
        count: Option<usize>,
        /// How long to wait for the first row, in milliseconds.
        timeout_ms: Option<u64>,
    },
    /// `CLOSE name`, `CLOSE ALL`.
    Close(Option<String>),
    /// `DEALLOCATE`, `DISCARD ALL`: nothing is kept that would have to go.
    Discard,
    /// Nothing between two semicolons.
    Empty,
}

/// `CREATE TABLE` or `CREATE SOURCE`.
#[derive(Clone, Debug)]
pub struct CreateRelation {
    /// Its name.
    pub name: ObjectName,
    /// Whether it is a source.
    pub source: bool,
    /// Its columns.
    pub columns: Vec<ColumnDefinition>,
    /// The primary key's columns.
    pub primary_key: Vec<String>,
    /// `WATERMARK FOR column AS expr`.
    pub watermark: Option<(String, ast::Expr)>,
    /// What the `WITH` options say about event time.
    pub time: TimeOptions,
    /// Which rows go by themselves.
    pub retention: Option<RetentionOptions>,
    /// The other `WITH` options, and `FORMAT x ENCODE y` as `format` and `encode`; keys in lower case.
    pub options: Vec<(String, String)>,
    /// Do nothing when it exists.
    pub if_not_exists: bool,
}

/// How long something may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Limit {
    /// As long as it may for its kind.
    #[default]
    Usual,
    /// As long as it likes.
    Off,
    /// So many microseconds.
    After(Micros),
}

/// The `WITH` options about event time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeOptions {
    /// How far ahead of its arrival a row may be stamped.
    pub future_fence: Limit,
    /// How long a partition may have no rows before the watermark goes on without it.
    pub idle_timeout: Limit,
}

/// A column of a table or source.
#[derive(Clone, Debug)]
pub struct ColumnDefinition {
    /// Its name.
    pub name: String,
    /// Its type.
    pub data_type: ast::DataType,
    /// `NOT NULL`.
    pub not_null: bool,
    /// `DEFAULT expr`.
    pub default: Option<ast::Expr>,
    /// `AS (expr)`, `GENERATED ALWAYS AS (expr) STORED`.
    pub generated: Option<ast::Expr>,
}

/// `CREATE [MATERIALIZED] VIEW`.
#[derive(Clone, Debug)]
pub struct CreateView {
    /// Its name.
    pub name: ObjectName,
    /// Output column names, if given.
    pub columns: Vec<String>,
    /// Maintained, or only a name for the query.
    pub materialized: bool,
    /// The query.
    pub query: Box<ast::Query>,
    /// `EMIT ON WINDOW CLOSE`.
    pub on_close: bool,
    /// Do nothing when it exists.
    pub if_not_exists: bool,
    /// Take the place of one that exists.
    pub or_replace: bool,
    /// The `WITH` options.
    pub options: Vec<(String, String)>,
}

/// `CREATE SINK name FROM view WITH (...)`, `CREATE SINK name AS query WITH (...)`.
#[derive(Clone, Debug)]
pub struct CreateSink {
    /// Its name.
    pub name: ObjectName,
    /// The view or table whose changes go out, or none when a query is given.
    pub from: Option<ObjectName>,
    /// The query.
    pub query: Option<Box<ast::Query>>,
    /// The `WITH` options, `FORMAT`/`ENCODE` as `format` and `encode`.
    pub options: Vec<(String, String)>,
    /// `EMIT ON WINDOW CLOSE`.
    pub on_close: bool,
    /// Do nothing when it exists.
    pub if_not_exists: bool,
}

/// Kinds that `DROP` tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropKind {
    /// `DROP TABLE`.
    Table,
    /// `DROP SOURCE`.
    Source,
    /// `DROP VIEW`.
    View,
    /// `DROP MATERIALIZED VIEW`.
    MaterializedView,
    /// `DROP SINK`.
    Sink,
}

/// What to subscribe to.
#[derive(Clone, Debug)]
pub struct SubscribeTo {
    /// The table or materialized view.
    pub name: ObjectName,
    /// Only changes after this epoch.
    pub as_of: Option<u64>,
    /// Whether the rows as of the start come first.
    pub snapshot: bool,
}

/// Forms of `COPY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFormat {
    /// PostgreSQL's tab-separated text.
    Text,
    /// Comma-separated values.
    Csv,
}

/// The options of `COPY`.
#[derive(Clone, Debug)]
pub struct CopyOptions {
    /// The form.
    pub format: CopyFormat,
    /// Between fields.
    pub delimiter: u8,
    /// Whether the first line names the columns.
    pub header: bool,
    /// What stands for NULL.
    pub null: String,
}

/// What `SHOW` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShowWhat {
    /// `SHOW SOURCES`.
    Sources,
    /// `SHOW TABLES`.
    Tables,
    /// `SHOW VIEWS`, `SHOW MATERIALIZED VIEWS`.
    Views,
    /// `SHOW SINKS`.
    Sinks,
    /// `SHOW EPOCHS`.
    Epochs,
    /// `SHOW CHECKPOINTS`.
    Checkpoints,
    /// `SHOW CREATE ... name`.
    Create(ObjectName),
    /// `SHOW COLUMNS FROM t`, `DESCRIBE t`.
    Columns(ObjectName),
    /// A run-time parameter, `SHOW server_version`.
    Parameter(String),
    /// `SHOW ALL`.
    All,
}

/// Splits a script into statements and parses each.
///
/// A script without any statement gives one [`StatementKind::Empty`]. The position of an error counts
/// characters from 1 in the whole script, as no statement comes back that it could refer to.
pub fn parse(sql: &str) -> Result<Vec<Statement>, SqlError> {
    let pieces = split(sql);
    if pieces.is_empty() {
        return Ok(vec![Statement { kind: StatementKind::Empty, text: String::new(), offset: 0 }]);
    }
    pieces.into_iter().map(parse_piece).collect()
}

fn parse_piece(piece: Piece<'_>) -> Result<Statement, SqlError> {
    let kind = parse_statement(piece.text).map_err(|mut error| {
        error.position = error.position.map(|position| position + piece.offset);
        error
    })?;
    Ok(Statement { kind, text: piece.text.to_owned(), offset: piece.offset })
}

fn parse_statement(text: &str) -> Result<StatementKind, SqlError> {
    limits::check_length(text)?;
    let mut tokens = reader::tokens(text)?;
    let place = |token: &TokenWithSpan| reader::position(text, token.span.start);
    limits::check_depth(&tokens).map_err(|(error, token)| error.at(place(token)))?;
    let emit = create::take_emit(&mut tokens, place)?;
    create::fence_sink_query(&mut tokens);
    query::table_as_select(&mut tokens);
    crate::as_of::mark_left(&mut tokens);
    crate::as_of::alias_last(&mut tokens);
    let dialect = dialect::TidemillDialect::for_tokens(tokens.len());
    let mut reader = Reader::new(&dialect, text, tokens);
    statement(&mut reader, emit)
}

/// A statement by its first word.
fn statement(reader: &mut Reader<'_>, emit: Option<create::Emit>) -> Result<StatementKind, SqlError> {
    let Some(word) = reader.peek_keyword() else { return query::query(reader, emit) };
    if let Some(emit) = emit.filter(|_| !matches!(word.as_str(), "CREATE" | "EXPLAIN")) {
        return Err(emit.misplaced());
    }
    match word.as_str() {
        "CREATE" => create::create(reader, emit),
        "EXPLAIN" => query::explain(reader, emit),
        "DROP" => create::drop(reader),
        "INSERT" | "UPDATE" | "DELETE" => query::dml(reader),
        "TRUNCATE" => query::truncate(reader),
        "COPY" => copy::copy(reader),
        "SUBSCRIBE" => {
            let to = session::subscribe(reader)?;
            reader.expect_end()?;
            Ok(StatementKind::Subscribe(to))
        }
        "SHOW" => session::show(reader),
        "VERIFY" => session::verify(reader),
        "APPLY" => repair::apply_late(reader),
        "ALTER" => repair::alter(reader),
        "DESCRIBE" | "DESC" => session::describe(reader),
        "SET" => session::set(reader),
        "RESET" => session::reset(reader),
        "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" => session::transaction(reader),
        "DECLARE" => session::declare(reader),
        "FETCH" => session::fetch(reader),
        "CLOSE" => session::close(reader),
        "DEALLOCATE" | "DISCARD" => session::discard(reader),
        "SELECT" | "WITH" | "VALUES" | "TABLE" => query::query(reader, emit),
        other => Err(unknown_statement(reader, other)),
    }
}

/// The error for a statement that PostgreSQL knows but Tidemill does not, or for a slip.
fn unknown_statement(reader: &Reader<'_>, word: &str) -> SqlError {
    const KNOWN: &[&str] = &[
        "ANALYZE",
        "CALL",
        "CHECKPOINT",
        "CLUSTER",
        "COMMENT",
        "DO",
        "EXECUTE",
        "FLUSH",
        "GRANT",
        "IMPORT",
        "LISTEN",
        "LOAD",
        "LOCK",
        "MERGE",
        "MOVE",
        "NOTIFY",
        "PREPARE",
        "REASSIGN",
        "REFRESH",
        "REINDEX",
        "RELEASE",
        "REPLACE",
        "REVOKE",
        "SAVEPOINT",
        "SECURITY",
        "UNLISTEN",
        "USE",
        "VACUUM",
    ];
    if !KNOWN.contains(&word) {
        return reader.expected("a statement");
    }
    let error = SqlError::new(state::FEATURE_NOT_SUPPORTED, format!("{word} is not supported")).at(reader.position());
    match word {
        "REFRESH" => error.hint("Materialized views are always up to date."),
        _ => error,
    }
}
