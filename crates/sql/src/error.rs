//! Errors as PostgreSQL clients expect them: SQLSTATE, message, position, hint.

use std::fmt;

/// The SQLSTATE codes in use, by PostgreSQL's names.
pub mod state {
    /// Malformed statement.
    pub const SYNTAX_ERROR: &str = "42601";
    /// No such table, view, source or sink.
    pub const UNDEFINED_TABLE: &str = "42P01";
    /// No such column.
    pub const UNDEFINED_COLUMN: &str = "42703";
    /// No such function, or not for these types.
    pub const UNDEFINED_FUNCTION: &str = "42883";
    /// The name is taken.
    pub const DUPLICATE_TABLE: &str = "42P07";
    /// Two columns have one name.
    pub const DUPLICATE_COLUMN: &str = "42701";
    /// Types do not fit.
    pub const DATATYPE_MISMATCH: &str = "42804";
    /// A column could be either of two.
    pub const AMBIGUOUS_COLUMN: &str = "42702";
    /// The object is of another kind.
    pub const WRONG_OBJECT_TYPE: &str = "42809";
    /// Grouping rules broken.
    pub const GROUPING_ERROR: &str = "42803";
    /// Known, but not done here.
    pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
    /// A value does not fit its type.
    pub const INVALID_TEXT_REPRESENTATION: &str = "22P02";
    /// Division by zero.
    pub const DIVISION_BY_ZERO: &str = "22012";
    /// A number is out of range.
    pub const NUMERIC_VALUE_OUT_OF_RANGE: &str = "22003";
    /// Other bad data.
    pub const DATA_EXCEPTION: &str = "22000";
    /// NULL in a NOT NULL column.
    pub const NOT_NULL_VIOLATION: &str = "23502";
    /// A primary key occurs twice.
    pub const UNIQUE_VIOLATION: &str = "23505";
    /// Others depend on the object.
    pub const DEPENDENT_OBJECTS_STILL_EXIST: &str = "2BP01";
    /// A parameter or option has no such value.
    pub const INVALID_PARAMETER_VALUE: &str = "22023";
    /// The statement does not go with the state of the session or object.
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: &str = "55000";
    /// A cursor that does not exist.
    pub const INVALID_CURSOR_NAME: &str = "34000";
    /// The user cancelled.
    pub const QUERY_CANCELED: &str = "57014";
    /// The limit of something is reached.
    pub const PROGRAM_LIMIT_EXCEEDED: &str = "54000";
    /// A text is longer than its column's type allows.
    pub const STRING_TOO_LONG: &str = "22001";
    /// A text is no date, time or interval.
    pub const INVALID_DATETIME_FORMAT: &str = "22007";
    /// A definition that cannot be.
    pub const INVALID_OBJECT_DEFINITION: &str = "42P17";
    /// A query needs too much memory.
    pub const OUT_OF_MEMORY: &str = "53200";
    /// No such type or other object.
    pub const UNDEFINED_OBJECT: &str = "42704";
    /// A table, or a list in a query, has too many columns.
    pub const TOO_MANY_COLUMNS: &str = "54011";
    /// The statement nests too deeply.
    pub const STATEMENT_TOO_COMPLEX: &str = "54001";
    /// A table's definition contradicts itself.
    pub const INVALID_TABLE_DEFINITION: &str = "42P16";
    /// A key or column list names a column that is not there, or a conflict target that is no key.
    pub const INVALID_COLUMN_REFERENCE: &str = "42P10";
    /// A generated column cannot be given a value.
    pub const GENERATED_ALWAYS: &str = "428C9";
    /// `ON CONFLICT DO UPDATE` would touch a row twice.
    pub const CARDINALITY_VIOLATION: &str = "21000";
    /// The type of a parameter cannot be known, or the number of parameters is wrong.
    pub const UNDEFINED_PARAMETER: &str = "42P02";
    /// Our fault.
    pub const INTERNAL_ERROR: &str = "XX000";
}

/// What went wrong with a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError {
    /// The SQLSTATE, one of [`state`].
    pub code: &'static str,
    /// What went wrong, naming the object.
    pub message: String,
    /// Where in the statement's text, in characters from 1.
    pub position: Option<usize>,
    /// Where, as line and column from 1, when the text was not at hand; see [`SqlError::in_text`].
    pub location: Option<(u64, u64)>,
    /// More about the cause.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
}

impl SqlError {
    /// An error without position, detail and hint.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        SqlError { code, message: message.into(), position: None, location: None, detail: None, hint: None }
    }

    /// Something that is known but not done.
    pub fn not_supported(message: impl Into<String>) -> Self {
        SqlError::new(state::FEATURE_NOT_SUPPORTED, message)
    }

    /// A bug of ours that did not have to end the process.
    pub fn internal(message: impl Into<String>) -> Self {
        SqlError::new(state::INTERNAL_ERROR, message)
    }

    /// Adds where in the statement, in characters from 1.
    pub fn at(mut self, position: usize) -> Self {
        self.position = Some(position);
        self
    }

    /// Adds where in the statement, as line and column from 1.
    pub fn located(mut self, line: u64, column: u64) -> Self {
        self.location = Some((line, column));
        if line == 1 {
            self.position = usize::try_from(column).ok();
        }
        self
    }

    /// Turns line and column into a position in `text`, which the statement was parsed from.
    pub fn in_text(mut self, text: &str) -> Self {
        let Some((line, column)) = self.location.take() else { return self };
        let skip = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
        let before: usize = text.split_inclusive('\n').take(skip).map(|l| l.chars().count()).sum();
        self.position = usize::try_from(column).ok().map(|column| before + column);
        self
    }

    /// Adds what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds more about the cause.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for SqlError {}

/// Something the user should know although the statement succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}
