//! What a panic said. One in an expression or a format is a bug of ours; it ends what it was about, nothing else.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tidemill_sql::SqlError;

/// The panic's message.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

/// Work on a relation's rows that evaluates expressions: a panic in one is an error of this work.
pub(crate) fn guarded<T>(relation: &str, work: impl FnOnce() -> Result<T, SqlError>) -> Result<T, SqlError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic_text(panic.as_ref());
        tracing::error!(relation, panic = text, "an expression panicked");
        Err(SqlError::internal(format!("an expression of \"{relation}\" failed by a bug: {text}")))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fmt;

    use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
    use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
    use tidemill_plan::{Scalar, ScalarError};

    /// Its argument, a time, unless that is 13 µs after 1970.
    #[derive(Debug)]
    pub(crate) struct Unlucky;

    impl fmt::Display for Unlucky {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("unlucky")
        }
    }

    impl Scalar for Unlucky {
        fn eval(&self, rows: &RecordBatch) -> Result<ArrayRef, ScalarError> {
            let times = rows.column(0).as_primitive::<TimestampMicrosecondType>();
            assert!(!times.values().contains(&13), "thirteen!");
            assert_eq!(times.null_count(), 0);
            Ok(rows.column(0).clone())
        }

        fn data_type(&self) -> &DataType {
            &DataType::Timestamp(TimeUnit::Microsecond, None)
        }
    }
}
