//! Expressions over batches, evaluated by whoever made the plan.

use std::fmt::{self, Debug, Display};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;

/// Why an expression has no value for some row: division by zero, a failed cast, overflow.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ScalarError {
    /// What went wrong, for the user.
    pub message: String,
}

impl ScalarError {
    /// An error with the message given.
    pub fn new(message: impl Display) -> Self {
        ScalarError { message: message.to_string() }
    }
}

/// A deterministic expression over the columns of one batch.
///
/// An error concerns at least one row of the batch; the caller finds out which by trying parts.
pub trait Scalar: Send + Sync + Debug + Display {
    /// One value per row.
    fn eval(&self, rows: &RecordBatch) -> Result<ArrayRef, ScalarError>;
    /// The type of the values.
    fn data_type(&self) -> &DataType;
    /// The columns it looks at, in ascending order, if known; others may hold anything.
    fn columns(&self) -> Option<Vec<usize>> {
        None
    }
}

/// An output column: most are just input columns, which costs nothing.
#[derive(Clone)]
pub enum Expr {
    /// The input column with this number.
    Column(usize),
    /// A computed column.
    Scalar(Arc<dyn Scalar>),
}

impl Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Column(i) => write!(f, "#{i}"),
            Expr::Scalar(s) => write!(f, "{s}"),
        }
    }
}

/// A query over complete inputs, for what has no incremental rule: the batch engine's door.
pub trait Recompute: Send + Sync + Debug {
    /// The whole answer over the whole inputs. Each input is given as a batch of rows in a fixed
    /// order (sorted by content), a row of multiplicity n listed n times.
    fn compute(&self, inputs: &[RecordBatch]) -> Result<RecordBatch, ScalarError>;
}
