//! How it is computed: one operator per file, the hub that holds all views' operators, and the
//! worker loop on timely.

mod operator;

pub use operator::{Operator, OperatorError, RowError, StateSize, StepCx};
