//! Operators against naive references: random histories with duplicates, NULLs and retractions, in several
//! batches per epoch; after every epoch the accumulated output must be what a full recomputation
//! from the accumulated input gives, and the epoch's output must be net.

mod as_of;
mod close_gate;
mod flat_map;
mod history;
mod over;
mod recompute;
mod recursion;
mod saved_groups;
mod saved_rows;
mod saving;
mod session;
mod topn;
mod window;
