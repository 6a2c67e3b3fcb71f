//! What is remembered: interned keys, rows in columns, and the runs of a collection.

mod collection;
mod key_table;
mod long;
mod row_store;

pub use collection::Collection;
pub use key_table::{KeyTable, NO_KEY};
pub use long::Long;
pub use row_store::RowStore;
