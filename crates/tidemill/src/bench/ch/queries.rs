//! The queries of the CH-benCHmark.

use crate::bench::suite::{Query, texts};

/// All queries.
pub fn all() -> Vec<Query> {
    (1..).zip(texts!("ch")).map(|(number, text)| Query::new(number, text)).collect()
}
