//! How it is computed: one operator per file, the hub that holds all views' operators, and the
//! worker loop on timely.

mod aggregate;
mod as_of;
mod close_gate;
mod event_time;
mod flat_map;
mod frame;
mod hub;
mod join;
mod kept_rows;
mod map;
mod operator;
mod ordered_rows;
mod over;
mod recompute;
mod row_order;
mod saved;
mod saving;
mod session;
mod time;
mod topn;
mod union;
mod view;
mod window;
mod worker;

pub use aggregate::Aggregate;
pub use as_of::AsOf;
pub use close_gate::CloseGate;
pub use flat_map::FlatMap;
pub use frame::{Begin, Command, Definition, Packet, ViewSpec};
pub use hub::{Deploy, Hub, Output, Place, StateSizes};
pub use join::Join;
pub use map::Map;
pub use operator::{Entries, EntryShape, Keeps, Operator, OperatorError, RowError, StateSize, StepCx};
pub use over::Over;
pub use recompute::Recompute;
pub use saving::{Placement, Saved, SavedShape, saved_shapes};
pub use session::Session;
pub use time::{Level, Step};
pub use topn::TopN;
pub use union::Union;
pub use window::Window;
pub use worker::{Cluster, Feed, Guards, Loop, start};
